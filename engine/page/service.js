// The service behind the page: its three calls and its errors. Knows nothing of what is shown.

/** A refusal (status 400...599 and the service's sentence), or status 0 where no answer came at all. */
export class ServiceError extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

async function answer(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, error.message);
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new ServiceError(response.status, body.error ?? response.statusText);
  return body;
}

/** {models: [...], limits: {pictures, bytes, pixels}} */
export function listModels() {
  return answer("/v1/models");
}

/** Detections of one picture: {detections, attention, timings, width, height, truncated}. Everything of `options` is a field of
    the form: model, conf, iou, max_det, attention. Throws ServiceError, or AbortError after signal's abort. */
export async function detect(blob, name, options, signal) {
  const form = new FormData();
  form.append("pictures", blob, name);
  for (const [field, value] of Object.entries(options)) form.append(field, String(value));
  const body = await answer("/v1/detect", { method: "POST", body: form, signal });
  const [picture] = body.pictures;
  return { ...picture, model: body.model, timings: body.timings_ms };
}

/** The sample picture as a File. */
export async function sample() {
  const response = await fetch("/page/sample.jpg").catch(() => null);
  if (!response?.ok) throw new ServiceError(response?.status ?? 0, "sample.jpg");
  return new File([await response.blob()], "sample.jpg", { type: "image/jpeg" });
}
