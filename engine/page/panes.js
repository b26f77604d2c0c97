// A model's view of the shown picture: canvas, counts, times, attention bars, table, downloads. One pane a model.
import { MOST, colour, readableOn } from "/page/boxes.js";
import { download } from "/page/downloads.js";
import { text, translate } from "/page/language.js";
import { paint } from "/page/painter.js";

const MOST_SCALE = 6; // small pictures are enlarged, but not beyond this
const NARROW = 860; // px, as in style.css
const MOST_HEIGHT = 0.72; // of the window
const milliseconds = (value) => (value === undefined ? "–" : value < 10 ? value.toFixed(1) : value.toFixed(0));

/** "5 boxes" in the present language. */
export function boxesText(count) {
  if (count === 1) return text("boxesOne");
  return text(count >= MOST ? "boxesLimit" : "boxes", { count });
}

function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  made.append(content);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export class Pane {
  #view = null; // {name, model, frame, detections, only, marks, result, thresholds}: what is shown and downloaded
  #bright = null; // the detection under the pointer in the table

  constructor(retry) {
    this.root = document.getElementById("pane-template").content.firstElementChild.cloneNode(true);
    this.canvas = this.#part("canvas");
    this.retry = retry;
    this.#part(".attention").open = window.innerWidth > NARROW; // on a phone the picture of the second model comes first
    for (const button of this.root.querySelectorAll("[data-download]")) {
      button.addEventListener("click", () => {
        const withConfidence = this.#part(".with-confidence").checked;
        download(button.dataset.download, { ...this.#view, withConfidence });
      });
    }
    translate(this.root);
  }

  #part(selector) {
    return this.root.querySelector(selector);
  }

  /** Shows a model's result for a frame. detections: those that pass the filters; partners: a Set of those that the
      other model found too, null where there is no other; result: undefined while it is awaited. */
  show({ model, source, detections, partners, result, thresholds }) {
    const { frame, name } = source;
    const only = partners ? detections.filter((detection) => !partners.has(detection)) : [];
    const marks = detections.map((detection) => ({
      xyxy: detection.xyxy,
      class: detection.class,
      label: `${detection.name} ${detection.confidence.toFixed(2)}`,
      dashed: only.includes(detection),
      detection,
    }));
    this.#view = { name, model: model.id, frame, detections, marks, result, thresholds };
    this.root.dataset.model = model.id;
    this.root.dataset.state = result ? "done" : source.fault ? "fault" : "working";
    this.#title(model);
    this.#facts(detections, only, result);
    this.#fault(source);
    this.#attention(result?.attention ?? []);
    this.#table(detections, partners);
    const boxes = result ? boxesText(detections.length) : text("working");
    this.canvas.setAttribute("aria-label", text("canvas", { name, boxes }));
    this.draw();
  }

  /** Shows nothing any more: the picture may be closed now. */
  forget() {
    this.#view = null;
  }

  #title(model) {
    const layers = model.dynamic_layers.length;
    this.#part(".name").textContent = model.id;
    this.#part(".about").textContent = text(layers ? "about" : "aboutStatic", {
      file: model.file,
      classes: model.classes.length,
      size: model.imgsz.join(" × "),
      parameters: model.parameters ? (model.parameters / 1e6).toFixed(2) : "?",
      layers,
    });
  }

  #facts(detections, only, result) {
    const count = this.#part(".count");
    count.textContent = result ? boxesText(detections.length) : text("working");
    count.dataset.count = result ? detections.length : "";
    this.#part(".truncated").hidden = !result?.truncated;
    this.#part(".only").textContent = only.length ? text("onlyHere", { count: only.length }) : "";
    const times = this.#part(".times");
    const values = {};
    for (const [name, value] of Object.entries(result?.timings ?? {})) values[name] = milliseconds(value);
    times.textContent = result ? text("times", values) : "";
    times.title = result ? text("timesTitle", values) : "";
    for (const button of this.root.querySelectorAll("[data-download]")) button.disabled = !result;
  }

  #fault(source) {
    const place = this.#part(".fault");
    const fault = source.fault;
    place.hidden = !fault;
    if (!fault) return place.replaceChildren();
    const values = { name: source.name, status: fault.status, sentence: fault.message };
    const key = { 0: "faultOffline", 429: "faultBusy", 503: "faultBusy", 504: "faultBusy" }[fault.status];
    const sentence = text(key ?? "faultService", values);
    if (place.dataset.sentence === sentence && place.childElementCount) return undefined; // not read out twice
    place.dataset.sentence = sentence;
    const again = element("button", text("retry"), { type: "button" });
    again.addEventListener("click", () => this.retry(source));
    return place.replaceChildren(element("span", sentence), again);
  }

  /** attention: [{layer, weights}]. A bar a layer, a segment a kernel; the numbers stand beside and in the name. */
  #attention(attention) {
    this.#part(".attention").hidden = attention.length === 0;
    const most = Math.max(0, ...attention.map(({ weights }) => weights.length));
    this.#part(".kernels").replaceChildren(
      ...Array.from({ length: most }, (_, number) => {
        const item = element("li", text("kernel", { number }));
        item.style.setProperty("--colour", colour(number));
        return item;
      }),
    );
    this.#part(".layers").replaceChildren(...attention.flatMap(({ layer, weights }) => this.#layer(layer, weights)));
  }

  #layer(layer, weights) {
    const shares = weights.map((weight) => `${(100 * weight).toFixed(0)} %`);
    const bar = element("span", "", { class: "stack", role: "img" });
    bar.setAttribute("aria-label", shares.map((share, number) => `${text("kernel", { number })}: ${share}`).join(", "));
    weights.forEach((weight, number) => {
      const piece = element("span", weight >= 0.14 ? shares[number] : "", { class: "kernel" });
      piece.title = `${text("kernel", { number })}: ${weight.toFixed(4)}`;
      piece.style.flexGrow = weight;
      piece.style.backgroundColor = colour(number);
      piece.style.color = readableOn(colour(number));
      piece.dataset.weight = weight;
      bar.append(piece);
    });
    const value = document.createElement("dd");
    value.append(bar);
    return [element("dt", layer), value];
  }

  #table(detections, partners) {
    this.root.classList.toggle("compared", partners !== null);
    const rows = detections.map((detection) => {
      const { class: index, name, confidence, xyxy } = detection;
      const row = document.createElement("tr");
      const title = element("th", name, { scope: "row" });
      title.style.setProperty("--colour", colour(index));
      row.append(title, element("td", confidence.toFixed(3)));
      for (const side of xyxy) row.append(element("td", side.toFixed(1)));
      row.append(element("td", text(partners?.has(detection) ? "byBoth" : "byOne"), { class: "agreed" }));
      row.addEventListener("pointerenter", () => this.#highlight(detection));
      row.addEventListener("pointerleave", () => this.#highlight(null));
      return row;
    });
    this.#part("tbody").replaceChildren(...rows);
  }

  #highlight(detection) {
    this.#bright = detection;
    this.draw();
  }

  /** Draws again, at the size that the window leaves and in its device pixels. */
  draw() {
    if (!this.#view?.frame) return;
    const { frame, marks } = this.#view;
    const room = this.#part(".picture").clientWidth;
    const highest = Math.max(240, window.innerHeight * MOST_HEIGHT);
    const scale = Math.min(room / frame.width, highest / frame.height, MOST_SCALE);
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [frame.width, frame.height].map((side) => Math.max(1, Math.round(side * scale * ratio)));
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.canvas.style.width = `${width / ratio}px`;
    this.canvas.style.height = `${height / ratio}px`;
    const lit = marks.map((mark) => ({ ...mark, bright: mark.detection === this.#bright }));
    paint(this.canvas, frame.image, lit, { width: frame.width, height: frame.height, unit: ratio });
  }
}
