// Draws a picture and its boxes on a canvas, on the screen and for the download alike. What is drawn is decided elsewhere.
import { colour, readableOn } from "/page/boxes.js";

const FAMILY = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans CJK SC", "Microsoft YaHei", sans-serif';
const MISSING = "#808080"; // where a file ends too early: the grey that the service sees there
const LABEL_WEIGHT = 4; // a covered label cannot be read any more; a covered bit of an object mostly can
const MOST_HIDDEN = 0.4; // of a picture, by labels: as in utils/annotator.py

/** Draws the picture over the whole canvas and the marks over it.
    marks: [{xyxy in pixels of the picture, label, class, dashed, bright}], the surest first. `unit`: canvas pixels a
    line of width 1 takes (the device pixel ratio on a screen). */
export function paint(canvas, picture, marks, { width, height, unit }) {
  const context = canvas.getContext("2d");
  const scale = canvas.width / width;
  context.imageSmoothingQuality = "high";
  context.fillStyle = MISSING;
  context.fillRect(0, 0, canvas.width, canvas.height); // else the picture before would show through
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const line = Math.max(1, Math.round(2 * unit));
  for (const mark of [...marks].reverse()) outline(context, rectangle(mark.xyxy, scale), mark, line);
  labels(context, marks, scale, Math.round(unit * Math.max(9, Math.min(12, canvas.width / unit / 32))));
}

/** A new canvas of the picture's full size with its marks, the lines as wide as the size asks for. */
export function fullSize(picture, marks, { width, height }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  paint(canvas, picture, marks, { width, height, unit: Math.max(0.75, (width + height) / 2 / 600) });
  return canvas;
}

/** Whole canvas pixels, so that the lines are crisp. */
function rectangle(xyxy, scale) {
  const [x1, y1, x2, y2] = xyxy.map((side) => Math.round(side * scale));
  return { x: x1, y: y1, width: Math.max(1, x2 - x1), height: Math.max(1, y2 - y1) };
}

function outline(context, { x, y, width, height }, mark, line) {
  const inset = line / 2; // the line lies inside the box, on whole pixels
  context.lineWidth = mark.bright ? line * 2 : line;
  context.strokeStyle = colour(mark.class);
  context.setLineDash(mark.dashed ? [line * 3, line * 2] : []);
  context.strokeRect(x + inset, y + inset, Math.max(1, width - line), Math.max(1, height - line));
  context.setLineDash([]);
  if (!mark.bright) return;
  context.fillStyle = `${colour(mark.class)}40`;
  context.fillRect(x, y, width, height);
}

/** The labels: the surest box chooses its place first, the others keep off those that lie already and, where they can,
    off what is in the boxes. Where labels would hide more than MOST_HIDDEN of the picture, those of the least sure boxes
    are left out. */
function labels(context, marks, scale, size) {
  const { width, height } = context.canvas;
  context.font = `600 ${size}px ${FAMILY}`;
  context.textBaseline = "middle";
  const boxes = marks.map((mark) => rectangle(mark.xyxy, scale));
  const taken = [];
  const placed = [];
  let room = MOST_HIDDEN * width * height;
  for (const [at, mark] of marks.entries()) {
    const text = shorten(context, mark.label, width - size);
    const plate = { width: Math.ceil(context.measureText(text).width + size * 0.7), height: Math.round(size * 1.4) };
    room -= plate.width * plate.height;
    if (room < 0 && taken.length) break;
    const place = choosePlace(boxes[at], plate, { taken, boxes, width, height });
    taken.push(place);
    placed.push({ place, text, mark });
  }
  for (const { place, text, mark } of placed.reverse()) {
    context.fillStyle = colour(mark.class); // the first to choose lies on top
    context.fillRect(place.x, place.y, place.width, place.height);
    context.fillStyle = readableOn(colour(mark.class));
    context.fillText(text, place.x + size * 0.35, place.y + place.height / 2 + size * 0.05);
  }
}

function shorten(context, text, most) {
  let kept = text;
  while (kept.length > 1 && context.measureText(kept).width > most) kept = `${kept.replace(/….*$/, "").slice(0, -1)}…`;
  return kept;
}

/** The first of the usual places that covers nothing; where none is, the one that covers least. */
function choosePlace(box, plate, { taken, boxes, width, height }) {
  const right = box.x + box.width - plate.width;
  const below = box.y + box.height;
  const corners = [
    [box.x, box.y - plate.height], [right, box.y - plate.height], [box.x, below], [right, below],
    [box.x, box.y], [right, box.y], [box.x, below - plate.height], [right, below - plate.height],
  ];
  let best = null;
  for (const [x, y] of corners) {
    const place = {
      ...plate,
      x: Math.max(0, Math.min(x, width - plate.width)),
      y: Math.max(0, Math.min(y, height - plate.height)),
    };
    const over = (others) => others.reduce((sum, other) => sum + overlap(place, other), 0);
    const covered = LABEL_WEIGHT * over(taken) + over(boxes);
    if (!best || covered < best.covered) best = { place, covered };
    if (!covered) break;
  }
  return best.place;
}

function overlap(one, other) {
  const width = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const height = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  return width > 0 && height > 0 ? width * height : 0;
}
