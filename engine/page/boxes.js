// Detections as data: which are shown, which two models agree on, their colours, and the label files. No drawing here.

export const FLOOR = 0.01; // the service is asked for every box above it, so that the slider needs no new request
export const MOST = 300; // boxes a picture: the service's own default
const MATCH_IOU = 0.5; // two models found the same object where their boxes overlap by at least this much

// utils/annotator.py: the same colours as in the pictures of detect.py
const PALETTE = (
  "#e6194b #0a84ff #ffb000 #12b886 #8f3fff #ff6fb5 #2ee62e #4bd2ff #78691e #c3e169 " +
  "#ffa587 #ff5a00 #ff1ee1 #d2b4ff #1e8700 #964bb4 #a54b5a #2d69a5 #b4f000 #b44b1e"
).split(" ");

/** The colour of a class, or of a kernel: "#rrggbb". It repeats after 20. */
export function colour(index) {
  return PALETTE[index % PALETTE.length];
}

/** Black or white, whichever stands out more from "#rrggbb". Luminance weights: ITU-R BT.601. */
export function readableOn(hex) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 150 ? "#000000" : "#ffffff";
}

/** Those above the confidence, as the service itself decides it: strictly above, in 32 bits. */
export function above(detections, confidence) {
  const threshold = Math.fround(confidence);
  return detections.filter((detection) => detection.confidence > threshold);
}

/** Those above the confidence whose class name is not in the Set of hidden ones. */
export function shown(detections, confidence, hidden) {
  return above(detections, confidence).filter((detection) => !hidden.has(detection.name));
}

/** Intersection over union of two [x1, y1, x2, y2]; 0 where both are empty. */
export function iou(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  return (width * height) / (area(one) + area(other) - width * height);
}

/** The detections that have a partner in the other list: a Set of objects of both lists. Partners are of one class name
    and overlap by MATCH_IOU; each has one, and the pairs that overlap most are made first. */
export function agreed(one, other) {
  const pairs = [];
  for (const left of one) {
    for (const right of other) {
      const overlap = left.name === right.name ? iou(left.xyxy, right.xyxy) : 0;
      if (overlap >= MATCH_IOU) pairs.push({ overlap, left, right });
    }
  }
  pairs.sort((a, b) => b.overlap - a.overlap);
  const taken = new Set();
  for (const { left, right } of pairs) {
    if (!taken.has(left) && !taken.has(right)) taken.add(left).add(right);
  }
  return taken;
}

/** Map of class name -> {index, counts: [n of each list]}, by class id. Lists of detections, one a model. */
export function countByClass(lists) {
  const found = new Map();
  lists.forEach((detections, list) => {
    for (const { name, class: index } of detections) {
      if (!found.has(name)) found.set(name, { index, counts: lists.map(() => 0) });
      found.get(name).counts[list] += 1;
    }
  });
  return new Map([...found].sort(([, a], [, b]) => a.index - b.index));
}

/** A YOLO label file: a row `class x y w h [confidence]` a box, centre and size as shares of the picture. */
export function toYoloText(detections, width, height, withConfidence) {
  const number = (value) => String(Number(value.toPrecision(6)));
  return detections
    .map(({ class: index, confidence, xyxy: [x1, y1, x2, y2] }) => {
      const xywhn = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height];
      const numbers = withConfidence ? [...xywhn, confidence] : xywhn;
      return `${index} ${numbers.map(number).join(" ")}\n`;
    })
    .join("");
}
