"""A request's way from its upload to its answer, through models that many requests share. Not for paths and statuses:
engine/service_routes.py; nor for the process around it: engine/server.py."""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.requests import Request

from engine.batching import Batcher
from engine.served_model import PictureAnswer, PictureJob, ServedModel, Thresholds
from engine.service_form import Form, Upload, read_form
from engine.service_limits import UPLOADS, Limits, ServiceError, Share, UploadMemory, quoted
from engine.service_options import DetectOptions, parse_fields
from engine.service_pictures import decoded_picture
from utils.class_names import class_numbers

DECODERS = min(8, max(1, (os.cpu_count() or 1) // 2))  # threads; the other cores are the network's


@dataclass(frozen=True)
class Received:
    """A picture of a request: what the client calls it, whether its file ends too early, and the job that it is."""

    name: str
    truncated: bool
    job: PictureJob


class Service:
    """The models with a thread each, and what is under way.

    Attributes:
        stopping: whether new requests are refused.
        running: detections that are being answered.
    """

    def __init__(self, models: Sequence[ServedModel], limits: Limits, *, max_batch: int) -> None:
        self.models, self.limits = {model.id: model for model in models}, limits
        self.batchers: dict[str, Batcher[PictureJob, PictureAnswer]] = {
            model.id: Batcher(
                model.answer, key=lambda job: job.fitted.shape, max_batch=max_batch, max_queue=limits.queue
            )
            for model in models
        }
        self.stopping, self.running = False, 0
        self._decoders = ThreadPoolExecutor(DECODERS, "decoder")
        self._uploads = UploadMemory(UPLOADS * limits.bytes)

    def described(self) -> dict[str, Any]:
        """What GET /v1/models tells."""
        limits = self.limits
        told = {"pictures": limits.pictures, "bytes": limits.bytes, "pixels": limits.pixels}
        return {"models": [model.described() for model in self.models.values()], "limits": told}

    def close(self) -> None:
        """Answers what waits and ends the threads."""
        self._decoders.shutdown()
        for batcher in self.batchers.values():
            batcher.close()

    async def detect(self, request: Request) -> dict[str, Any]:
        """The answer to a POST of pictures. Raises ServiceError."""
        if self.stopping:
            raise ServiceError(503, "the service is stopping")
        begun = time.perf_counter()
        self.running += 1
        try:
            with self._uploads.share() as share:
                form = await self._form(request, share)
                options = parse_fields(form.fields)
                model = self._model(options.model)
                asked = _thresholds(options, model)
                decoding = time.perf_counter()
                with _until(self.limits.seconds, 504, "an answer"):
                    received = await self._received(form, model, asked)
            decode_ms = 1000 * (time.perf_counter() - decoding)
            with _until(self.limits.seconds, 504, "an answer"):
                answers = await self._answers(model, [picture.job for picture in received])
        finally:
            self.running -= 1
        pictures = [_picture(model, *pair) for pair in zip(received, answers, strict=True)]
        return {"model": model.id, "pictures": pictures, "timings_ms": _timings(answers, decode_ms, begun)}

    async def _form(self, request: Request, share: Share) -> Form:
        claimed = request.headers.get("content-length", "")
        if claimed.isdecimal() and int(claimed) > self.limits.bytes:
            raise ServiceError(413, f"at most {self.limits.bytes} bytes a request were expected, got {claimed}")
        with _until(self.limits.seconds, 408, "an upload"):
            return await read_form(request.headers.get("content-type", ""), request.stream(), self.limits, share)

    def _model(self, ident: str) -> ServedModel:
        chosen = self.models.get(ident) if ident else next(iter(self.models.values()))
        if chosen is None:
            raise ServiceError(404, f"model: one of {', '.join(self.models)} was expected, got {quoted(ident)}")
        return chosen

    async def _received(self, form: Form, model: ServedModel, asked: Thresholds) -> list[Received]:
        """The pictures decoded and fitted, one after the other, so that one request holds one large picture."""
        loop = asyncio.get_running_loop()

        def received(upload: Upload) -> Received:
            image, truncated = decoded_picture(upload.content, upload.name, self.limits)
            upload.content = bytearray()
            return Received(upload.name, truncated, model.job(image, asked))

        return [await loop.run_in_executor(self._decoders, received, upload) for upload in form.pictures]

    async def _answers(self, model: ServedModel, jobs: Sequence[PictureJob]) -> list[PictureAnswer]:
        futures = self.batchers[model.id].submit(jobs)
        try:
            return await asyncio.gather(*map(asyncio.wrap_future, futures))
        finally:
            for future in futures:
                future.cancel()  # of no effect on what is done


# ------------------------------------------------------------------------------------------------------------- answers
def _thresholds(options: DetectOptions, model: ServedModel) -> Thresholds:
    """The options with classes as the model numbers them. Raises InputError for classes that it does not know."""
    classes = class_numbers(options.classes, model.names)
    chosen = None if classes is None else tuple(classes)
    return Thresholds(options.conf, options.iou, chosen, options.max_det, options.attention)


def _picture(model: ServedModel, picture: Received, answer: PictureAnswer) -> dict[str, Any]:
    height, width = picture.job.original_hw
    told = {
        "filename": picture.name,
        "width": width,
        "height": height,
        "truncated": picture.truncated,
        "detections": [_detection(row, model.names, (width, height)) for row in answer.detections],
    }
    if answer.attention:
        told["attention"] = [
            {"layer": layer, "weights": [round(weight, 6) for weight in weights]}
            for layer, weights in answer.attention.items()
        ]
    return told


def _detection(row: Sequence[float], names: dict[int, str], size_wh: tuple[int, int]) -> dict[str, Any]:
    *xyxy, confidence, number = row
    return {
        "xyxy": [round(value, 2) for value in xyxy],  # finer than any label is
        "xyxyn": [round(value / side, 6) for value, side in zip(xyxy, size_wh * 2, strict=True)],
        "class": int(number),
        "name": names[int(number)],
        "confidence": confidence,  # not rounded: whoever filters by it gets what a request with that threshold gets
    }


def _timings(answers: Sequence[PictureAnswer], decode_ms: float, begun: float) -> dict[str, float]:
    batches = {answer.batch: answer.inference_ms for answer in answers}
    timings = {
        "decode": decode_ms,
        "queue": max(answer.queue_ms for answer in answers),
        "inference": sum(batches.values()),
        "nms": sum(answer.nms_ms for answer in answers),
        "total": 1000 * (time.perf_counter() - begun),
    }
    return {name: round(value, 2) for name, value in timings.items()}


@contextmanager
def _until(seconds: float, status: int, what: str) -> Iterator[None]:
    """A block that raises ServiceError where it takes more seconds than that."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError as error:
        raise ServiceError(status, f"{what} was expected in {seconds:g} s") from error
