// Starts the page and keeps what is seen in step with the session. The parts are in files of their own, each by its noun.
import { above, agreed, countByClass, shown } from "/page/boxes.js";
import { connectControls, listModelChoices, showControls } from "/page/controls.js";
import { connectIntake } from "/page/intake.js";
import { connectLanguage, onLanguage, text, translate } from "/page/language.js";
import { notice } from "/page/notices.js";
import { Pane, boxesText } from "/page/panes.js";
import { connectPlayer, showPlayer } from "/page/player.js";
import { listModels } from "/page/service.js";
import { Session } from "/page/session.js";
import { showStrip } from "/page/strip.js";

const at = (id) => document.getElementById(id);
const session = new Session(redrawSoon);
const panes = [];
let scheduled = false;

/** Any number of changes before the next frame of the screen cost one redraw. */
function redrawSoon() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    redraw();
  });
}

function redraw() {
  const source = session.source;
  const results = session.chosen.map((id) => source?.results.get(id));
  const raw = results.map((result) => result?.detections ?? []);
  const lists = raw.map((detections) => shown(detections, session.confidence, session.hidden));
  const complete = results.length === 2 && results.every(Boolean);
  const partners = complete ? agreed(...lists) : null;
  at("empty").hidden = Boolean(source);
  at("camera").textContent = text(session.sources.some((one) => one.live && !one.seekable) ? "cameraStop" : "camera");
  showPlayer(session);
  showPanes(source, results, lists, partners);
  showLegend(lists, partners);
  showControls(session, countByClass(raw.map((detections) => above(detections, session.confidence))));
  showStrip(session);
  tellStatus(source, results, lists);
}

function showPanes(source, results, lists, partners) {
  const place = at("panes");
  place.hidden = !source?.frame;
  place.classList.toggle("two", session.chosen.length === 2);
  document.body.classList.toggle("working", session.working);
  while (panes.length < session.chosen.length) panes.push(new Pane((failed) => session.retry(failed)));
  while (panes.length > session.chosen.length) panes.pop().root.remove();
  place.append(...panes.map((pane) => pane.root).filter((root) => root.parentNode !== place));
  if (!source?.frame) return panes.forEach((pane) => pane.forget());
  const thresholds = { confidence_above: session.confidence, iou: session.iou };
  panes.forEach((pane, number) => {
    const model = session.model(session.chosen[number]);
    pane.show({ model, source, detections: lists[number], partners, result: results[number], thresholds });
  });
  return undefined;
}

/** What dashed boxes mean, and how many objects both models found, each pair counted once. */
function showLegend(lists, partners) {
  at("legend").hidden = !partners;
  if (!partners) return;
  const both = partners.size / 2;
  const all = lists.flat().length - both;
  at("agreement").textContent = text("agreement", { both, all });
}

/** Read out by screen readers: the counts of a still picture, once they are complete; never those of a running video. */
function tellStatus(source, results, lists) {
  const status = at("status");
  if (!source?.frame || source.playing || !results.every(Boolean)) return;
  const counts = session.chosen.map((model, number) => {
    return text("statusModel", { model, boxes: boxesText(lists[number].length) });
  });
  const sentence = text("status", { name: source.name, counts: counts.join(", ") });
  if (status.textContent !== sentence) status.textContent = sentence;
}

async function start() {
  try {
    const { models, limits } = await listModels();
    session.update({ models, limits, chosen: models.slice(0, 2).map(({ id }) => id) });
    listModelChoices(session);
  } catch (error) {
    notice("faultModels", { sentence: error.message }, { label: text("retry"), run: start });
  }
}

connectLanguage();
connectControls(session);
connectIntake(session);
connectPlayer(session);
onLanguage(() => {
  if (session.models.length) listModelChoices(session);
  for (const pane of panes) translate(pane.root);
  redrawSoon();
});
at("clear").addEventListener("click", () => {
  for (const source of [...session.sources]) session.remove(source);
});
new ResizeObserver(() => panes.forEach((pane) => pane.draw())).observe(at("panes"));
await start();
