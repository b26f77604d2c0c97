// How sources reach the page: the file chooser, drag and drop, the clipboard, the sample, the webcam.
import { SourceError, openCamera, openFile } from "/page/frames.js";
import { text } from "/page/language.js";
import { clearNotices, notice } from "/page/notices.js";
import { sample } from "/page/service.js";

const at = (id) => document.getElementById(id);

/** Opens files and adds those that can be read; each other one gets its sentence. Both are brought into view. */
async function take(session, files) {
  clearNotices();
  const sources = [];
  for (const file of files) {
    try {
      sources.push(await openFile(file, session.limits));
    } catch (error) {
      tell(error);
    }
  }
  session.add(sources);
  if (at("stage").getBoundingClientRect().top < 0) window.scrollTo({ top: 0 }); // chosen from below, on a phone
}

function tell(error) {
  if (!(error instanceof SourceError)) throw error;
  notice(error.key, error.values);
}

async function toggleCamera(session) {
  const running = session.sources.find((source) => source.live && !source.seekable);
  if (running) return session.remove(running);
  clearNotices();
  try {
    session.add([await openCamera(text("camera"))]);
  } catch (error) {
    tell(error);
  }
  return undefined;
}

/** Connects every way in, once. */
export function connectIntake(session) {
  const files = at("files");
  for (const id of ["choose", "empty-choose"]) at(id).addEventListener("click", () => files.click());
  files.addEventListener("change", async () => {
    const chosen = [...files.files];
    files.value = ""; // the same file may be chosen again
    await take(session, chosen);
  });
  at("camera").addEventListener("click", () => toggleCamera(session));
  at("sample").addEventListener("click", async () => {
    const file = await sample().catch(() => null);
    if (file) await take(session, [file]);
    else notice("faultSample");
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (pasted.length) take(session, pasted);
    else notice("faultPaste");
  });
  connectDrop(session);
}

function connectDrop(session) {
  const curtain = at("drop");
  let depth = 0; // dragenter and dragleave come in pairs for every element that is crossed
  document.addEventListener("dragenter", (event) => {
    event.preventDefault();
    depth += 1;
    curtain.hidden = false;
  });
  document.addEventListener("dragleave", () => {
    depth -= 1;
    if (depth <= 0) curtain.hidden = true;
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    curtain.hidden = true;
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length) take(session, files);
    else notice("faultDrop");
  });
}
