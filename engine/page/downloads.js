// Files for the user: the annotated picture and its labels, saved by the browser itself.
import { toYoloText } from "/page/boxes.js";
import { fullSize } from "/page/painter.js";

/** Hands a Blob to the browser's downloads under that name. */
function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser may read it after click() returned
}

const FORMATS = {
  png({ frame, marks }) {
    return new Promise((resolve) => fullSize(frame.image, marks, frame).toBlob(resolve, "image/png"));
  },
  txt({ frame, detections, withConfidence }) {
    return new Blob([toYoloText(detections, frame.width, frame.height, withConfidence)], { type: "text/plain" });
  },
  json({ name, model, frame, detections, result, thresholds }) {
    const { width, height } = frame;
    const body = { filename: name, model, width, height, ...thresholds, detections, attention: result.attention };
    return new Blob([`${JSON.stringify(body, null, 2)}\n`], { type: "application/json" });
  },
};

/** Downloads what a pane shows as "png", "txt" or "json". view: see panes.js. */
export async function download(format, view) {
  const stem = view.name.replace(/\.[^.]*$/, "");
  const model = view.model.replaceAll("/", "-"); // exp/best
  const second = view.frame.time === undefined ? "" : `-${view.frame.time.toFixed(2)}s`;
  const tail = format === "txt" ? "" : `-${model}`; // a label file is named as its picture, for training
  save(await FORMATS[format](view), `${stem}${second}${tail}.${format}`);
}
