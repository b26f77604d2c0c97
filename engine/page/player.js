// The buttons under a video: play, pause, next frame, position. A webcam has none but pause.
import { text } from "/page/language.js";

const STEP = 1 / 15; // s; browsers do not tell a video's frame rate
const at = (id) => document.getElementById(id);
const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

/** Connects the buttons to a session, once. */
export function connectPlayer(session) {
  at("play").addEventListener("click", async () => {
    const source = session.source;
    if (source.playing) source.pause();
    else await source.play();
    session.update();
  });
  at("step").addEventListener("click", () => go(session, session.source.video.currentTime + STEP));
  at("seek").addEventListener("input", ({ target }) => go(session, Number(target.value)));
}

async function go(session, seconds) {
  const source = session.source;
  source.pause();
  await source.seek(seconds);
  session.update();
}

/** Shows the buttons that the shown source has a use for. */
export function showPlayer({ source }) {
  at("player").hidden = !source?.live;
  if (!source?.live) return;
  at("play").textContent = text(source.playing ? "pause" : "play");
  for (const id of ["step", "seek", "time"]) at(id).hidden = !source.seekable;
  if (!source.seekable) return;
  const { duration } = source.video;
  const second = source.frame?.time ?? 0;
  at("seek").max = Number.isFinite(duration) ? duration : second;
  if (document.activeElement !== at("seek") || source.playing) at("seek").value = second;
  at("seek").setAttribute("aria-valuetext", clock(second));
  at("time").value = `${clock(second)} / ${Number.isFinite(duration) ? clock(duration) : "–"}`;
}
