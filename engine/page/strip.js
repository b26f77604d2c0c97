// The row of thumbnails: which source is shown, and which are taken away.
import { text } from "/page/language.js";

const SIDE = 72; // px
const drawn = new Map(); // id of a source -> its list item
let seen = null; // the item of the shown source, once it has been scrolled to

/** Shows a thumbnail of each of the session's sources. */
export function showStrip(session) {
  const list = document.getElementById("thumbnails");
  document.getElementById("strip").hidden = session.sources.length === 0;
  const items = session.sources.map((source) => {
    if (!drawn.has(source.id)) drawn.set(source.id, newItem(session, source));
    return refresh(drawn.get(source.id), source, source === session.source);
  });
  for (const [id, item] of drawn) {
    if (items.includes(item)) continue;
    item.remove();
    drawn.delete(id);
  }
  items.forEach((item, place) => {
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
  const shown = drawn.get(session.source?.id) ?? null;
  if (shown && shown !== seen) list.scrollLeft = shown.offsetLeft - list.offsetLeft - (list.clientWidth - SIDE) / 2;
  seen = shown;
}

function newItem(session, source) {
  const ratio = window.devicePixelRatio || 1;
  const item = document.createElement("li");
  const canvas = Object.assign(document.createElement("canvas"), { width: SIDE * ratio, height: SIDE * ratio });
  const show = Object.assign(document.createElement("button"), { type: "button", className: "thumbnail" });
  const remove = Object.assign(document.createElement("button"), { type: "button", className: "remove" });
  show.append(canvas);
  remove.textContent = "×";
  show.addEventListener("click", () => session.select(source));
  show.addEventListener("keydown", ({ key }) => {
    const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[key];
    const neighbour = step && item[step]?.querySelector(".thumbnail");
    neighbour?.focus();
    neighbour?.click();
  });
  remove.addEventListener("click", () => session.remove(source));
  item.append(show, remove);
  return item;
}

function refresh(item, source, current) {
  const [show, remove] = item.children;
  show.setAttribute("aria-label", text("show", { name: source.name }));
  show.setAttribute("aria-current", String(current));
  show.title = source.name;
  show.classList.toggle("fault", Boolean(source.fault));
  remove.setAttribute("aria-label", text("remove", { name: source.name }));
  if (source.frame && !item.dataset.drawn) {
    cover(show.firstElementChild, source.frame);
    item.dataset.drawn = "yes"; // a live source keeps its first frame
  }
  return item;
}

/** Draws the middle of a frame so that it fills the canvas. */
function cover(canvas, { image, width, height }) {
  const side = Math.min(width, height);
  const context = canvas.getContext("2d");
  context.drawImage(image, (width - side) / 2, (height - side) / 2, side, side, 0, 0, canvas.width, canvas.height);
}
