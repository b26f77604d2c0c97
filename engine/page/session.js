// What the page is working on: the sources, the chosen models and thresholds, and the one request that is under way.
// It draws nothing: it calls `changed` whenever there is something new to show.
import { FLOOR, MOST } from "/page/boxes.js";
import { ServiceError, detect } from "/page/service.js";

const nextPaint = () => new Promise(requestAnimationFrame);

export class Session {
  models = []; // as the service lists them
  limits = {};
  chosen = []; // ids of one or two models
  confidence = 0.25;
  iou = 0.45;
  attention = true;
  hidden = new Set(); // names of classes
  sources = [];
  source = null; // the one that is shown
  working = false;
  #request = null; // {controller, key}

  constructor(changed) {
    this.changed = changed;
  }

  model(id) {
    return this.models.find((model) => model.id === id);
  }

  add(sources) {
    this.sources.push(...sources);
    if (sources.length) this.select(sources[0]);
  }

  select(source) {
    if (this.source?.live && this.source !== source) this.source.pause();
    this.source = source;
    this.update();
  }

  remove(source) {
    const at = this.sources.indexOf(source);
    this.sources.splice(at, 1);
    source.close();
    if (this.source === source) this.source = this.sources[Math.min(at, this.sources.length - 1)] ?? null;
    this.update();
  }

  /** Changes fields ({iou: .5, chosen: [...]}) and asks the service for whatever that needs. */
  update(fields = {}) {
    Object.assign(this, fields);
    if (this.#request && !this.#wanted(this.#request)) this.#request.controller.abort();
    this.changed();
    this.#work();
  }

  /** What a result depends on beside the picture; the confidence is no part of it, as it is filtered here. */
  #key(id) {
    return JSON.stringify([id, this.iou, this.#withAttention(id)]);
  }

  #withAttention(id) {
    return this.attention && this.model(id).dynamic_layers.length > 0;
  }

  #wanted({ source, id, key }) {
    return this.sources.includes(source) && this.chosen.includes(id) && this.#key(id) === key;
  }

  /** Sends what is missing, one request at a time, the shown source first, until nothing is. */
  async #work() {
    if (this.working) return;
    this.working = true;
    try {
      for (let job = this.#nextJob(); job; job = this.#nextJob()) {
        this.changed();
        await job();
      }
    } finally {
      this.working = false;
      this.changed();
    }
  }

  #nextJob() {
    const source = this.source;
    if (source?.live && !source.fault && (source.playing || source.due)) return () => this.#advance(source);
    for (const candidate of [source, ...this.sources]) {
      if (!candidate?.frame || candidate.fault) continue;
      const id = this.chosen.find((one) => candidate.results.get(one)?.key !== this.#key(one));
      if (id) return () => this.#complete(candidate, id);
    }
    return null;
  }

  async #complete(source, id) {
    const result = await this.#ask(source, source.frame, id);
    if (result) source.results.set(id, result);
  }

  /** The next frame of a live source through every chosen model, then shown at once: boxes never trail the picture. */
  async #advance(source) {
    await nextPaint(); // a hidden tab rests
    if (source.video.ended) source.pause();
    const frame = await source.capture();
    const results = new Map();
    for (const id of this.chosen) {
      const result = await this.#ask(source, frame, id);
      if (!result) return;
      results.set(id, result);
    }
    Object.assign(source, { frame, results });
  }

  /** One request: its result, or null where it was no longer wanted or failed (then the source carries the fault). */
  async #ask(source, frame, id) {
    const controller = new AbortController();
    const key = this.#key(id);
    this.#request = { controller, source, id, key };
    try {
      const options = { model: id, conf: FLOOR, iou: this.iou, max_det: MOST, attention: this.#withAttention(id) };
      const name = source.live ? "frame.jpg" : source.name;
      return { ...(await detect(frame.blob, name, options, controller.signal)), key };
    } catch (error) {
      if (error.name === "AbortError") return null;
      if (!(error instanceof ServiceError)) throw error;
      source.fault = error;
      if (source.live) source.pause();
      return null;
    } finally {
      this.#request = null;
    }
  }

  /** Forgets the fault of a source, so that it is sent again. */
  retry(source) {
    source.fault = null;
    if (source.live) source.due = true;
    this.update();
  }
}
