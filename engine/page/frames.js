// Where pictures come from: files, a video, the webcam. Each source gives frames {image, blob, width, height}: what is
// drawn, what is sent, and the size of both. Nothing here is sent anywhere.

const JPEG_QUALITY = 0.95; // of a video's frames on their way to the service
let lastId = 0;

/** Why a source could not be opened: `key` is its text in texts.js, `values` fill it in. */
export class SourceError extends Error {
  constructor(key, values = {}) {
    super(key);
    this.key = key;
    this.values = values;
  }
}

/** A still picture: one frame for ever. */
class Picture {
  live = false;

  constructor(file, image) {
    Object.assign(this, { id: ++lastId, name: file.name, image, results: new Map(), fault: null });
    this.frame = { image, blob: file, width: image.width, height: image.height };
  }

  close() {
    this.image.close?.(); // an ImageBitmap; a canvas has nothing to close
  }
}

/** A <video> that is never shown itself: its frames are copied, so that what is drawn is what was sent. */
class Moving {
  live = true;
  results = new Map();
  fault = null;
  frame = null;

  constructor(name, video, { seekable }) {
    Object.assign(this, { id: ++lastId, name, video, seekable, playing: true, due: true });
  }

  /** The frame that the video shows now, copied. */
  async capture() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const image = Object.assign(document.createElement("canvas"), { width, height });
    image.getContext("2d").drawImage(this.video, 0, 0);
    const blob = await new Promise((resolve) => image.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
    this.due = false;
    return { image, blob, width, height, time: this.video.currentTime };
  }

  async play() {
    if (this.video.ended) this.video.currentTime = 0;
    this.playing = true;
    await this.video.play();
  }

  pause() {
    this.playing = false;
    this.video.pause();
  }

  /** Goes to a second of the video; the frame there is due to be looked at. */
  async seek(seconds) {
    const arrived = new Promise((resolve) => this.video.addEventListener("seeked", resolve, { once: true }));
    this.video.currentTime = Math.max(0, Math.min(seconds, this.video.duration));
    await arrived;
    this.due = true;
  }

  close() {
    this.pause();
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    this.video.srcObject = null;
    if (this.video.src) URL.revokeObjectURL(this.video.src);
    this.video.removeAttribute("src");
  }
}

/** The source in a file. Throws SourceError where it is neither a picture nor a video that this browser reads, or over
    a limit of the service ({bytes, pixels}). */
export async function openFile(file, limits) {
  if (file.type.startsWith("video/")) return openVideo(file);
  const mega = (number) => (number / 1e6).toFixed(1);
  if (limits.bytes && file.size > limits.bytes) {
    throw new SourceError("faultBytes", { name: file.name, got: mega(file.size), most: mega(limits.bytes) });
  }
  const image = await decoded(file);
  const pixels = image.width * image.height;
  if (limits.pixels && pixels > limits.pixels) {
    image.close?.();
    throw new SourceError("faultPixels", { name: file.name, got: mega(pixels), most: mega(limits.pixels) });
  }
  return new Picture(file, image);
}

/** The picture in a file, upright, as the service turns it: an ImageBitmap. One that ends too early, of which no
    browser makes one, is a canvas with as much as there is. */
async function decoded(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    return canvasOf(file);
  }
}

async function canvasOf(file) {
  const image = Object.assign(new Image(), { src: URL.createObjectURL(file) });
  try {
    await image.decode();
  } catch {
    throw new SourceError("faultUnreadable", { name: file.name });
  } finally {
    URL.revokeObjectURL(image.src);
  }
  const { naturalWidth: width, naturalHeight: height } = image;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas;
}

function newVideo() {
  return Object.assign(document.createElement("video"), { muted: true, playsInline: true });
}

async function openVideo(file) {
  const video = newVideo();
  video.src = URL.createObjectURL(file);
  try {
    await video.play();
  } catch {
    URL.revokeObjectURL(video.src);
    throw new SourceError("faultUnreadable", { name: file.name });
  }
  return new Moving(file.name, video, { seekable: true });
}

/** The webcam as a source of that name. Throws SourceError where the browser or its user says no. */
export async function openCamera(name) {
  if (!navigator.mediaDevices?.getUserMedia) throw new SourceError("faultCameraHost");
  const video = newVideo();
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } }, audio: false });
    await video.play();
  } catch (error) {
    throw new SourceError("faultCamera", { sentence: error.message });
  }
  return new Moving(name, video, { seekable: false });
}
