"""The models behind HTTP: routes, and a request's way from its upload to its answer. Not for the process around it:
engine/server.py."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from engine.batching import Batcher
from engine.served_model import PictureAnswer, PictureJob, ServedModel, Thresholds
from engine.service_docs import POLICY, docs_page
from engine.service_form import Form, Upload, read_form
from engine.service_limits import UPLOADS, Limits, ServiceError, UploadMemory
from engine.service_options import DetectOptions, parse_fields
from engine.service_pictures import decoded_picture
from engine.service_schema import FORM, PROBLEMS, DetectAnswer, Health, ModelsAnswer
from utils.class_names import class_numbers
from utils.errors import InputError

PAGE = Path(__file__).parent / "page"
DECODERS = min(8, max(1, (os.cpu_count() or 1) // 2))  # threads; the other cores are the network's
REFUSALS = {
    404: "a path that /docs describes was expected, got another one",
    405: "a method that /docs names for this path was expected, got another one",
}
ABOUT = "Pictures in, boxes out. Nothing of a picture is kept."


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
                    jobs = await self._jobs(form, model, asked)
            decode_ms = 1000 * (time.perf_counter() - decoding)
            with _until(self.limits.seconds, 504, "an answer"):
                answers = await self._answers(model, jobs)
        finally:
            self.running -= 1
        pictures = [
            _picture(model, upload, job, answer)
            for upload, job, answer in zip(form.pictures, jobs, answers, strict=True)
        ]
        return {"model": model.id, "pictures": pictures, "timings_ms": _timings(answers, decode_ms, begun)}

    async def _form(self, request: Request, share: Any) -> Form:
        claimed = request.headers.get("content-length", "")
        if claimed.isdecimal() and int(claimed) > self.limits.bytes:
            raise ServiceError(413, f"at most {self.limits.bytes} bytes a request were expected, got {claimed}")
        with _until(self.limits.seconds, 408, "an upload"):
            return await read_form(request.headers.get("content-type", ""), request.stream(), self.limits, share)

    def _model(self, ident: str) -> ServedModel:
        chosen = self.models.get(ident) if ident else next(iter(self.models.values()))
        if chosen is None:
            raise ServiceError(404, f"model: one of {', '.join(self.models)} was expected, got {ident[:60]!r}")
        return chosen

    async def _jobs(self, form: Form, model: ServedModel, asked: Thresholds) -> list[PictureJob]:
        """The pictures decoded and fitted, one after the other, so that one request holds one large picture."""
        loop = asyncio.get_running_loop()

        def made(upload: Upload) -> PictureJob:
            job = model.job(decoded_picture(upload.content, upload.name, self.limits), asked)
            upload.content = bytearray()
            return job

        return [await loop.run_in_executor(self._decoders, made, upload) for upload in form.pictures]

    async def _answers(self, model: ServedModel, jobs: Sequence[PictureJob]) -> list[PictureAnswer]:
        futures = self.batchers[model.id].submit(jobs)
        try:
            return await asyncio.gather(*map(asyncio.wrap_future, futures))
        finally:
            for future in futures:
                future.cancel()  # of no effect on what is done


def create_app(service: Service) -> FastAPI:
    """The routes. The application closes the service when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.get_running_loop().run_in_executor(None, service.close)

    app = FastAPI(
        title="yolov5-dynamic", description=ABOUT, docs_url=None, redoc_url=None, lifespan=lifespan, version="1"
    )
    app.add_exception_handler(ServiceError, lambda _, error: _problem(error.status, error.told))
    app.add_exception_handler(InputError, lambda _, error: _problem(400, str(error)))
    app.add_exception_handler(HTTPException, lambda _, error: _http_problem(error))
    app.add_exception_handler(ClientDisconnect, lambda *_: _problem(400, "a whole body was expected, got a part"))
    app.add_exception_handler(Exception, lambda *_: _problem(500, "a fault of the service, which its log tells"))
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    described = service.described()

    @app.get("/healthz", responses={200: {"model": Health}, 503: PROBLEMS[503]})
    async def healthz() -> JSONResponse:
        """Whether requests are answered."""
        return _problem(503, "the service is stopping") if service.stopping else JSONResponse({"status": "ok"})

    @app.get("/v1/models", responses={200: {"model": ModelsAnswer}})
    async def models() -> JSONResponse:
        """The models that can be asked, the default first, and what a request may ask for."""
        return JSONResponse(described)

    @app.post("/v1/detect", responses={200: {"model": DetectAnswer}, **PROBLEMS}, openapi_extra=FORM)
    async def detect(request: Request) -> JSONResponse:
        """Finds objects in pictures."""
        return JSONResponse(await service.detect(request))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()), headers={"Content-Security-Policy": POLICY})

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")


# ------------------------------------------------------------------------------------------------------------- answers
def _thresholds(options: DetectOptions, model: ServedModel) -> Thresholds:
    """The options with classes as the model numbers them. Raises InputError for classes that it does not know."""
    classes = class_numbers(options.classes, model.names)
    chosen = None if classes is None else tuple(classes)
    return Thresholds(options.conf, options.iou, chosen, options.max_det, options.attention)


def _picture(model: ServedModel, upload: Upload, job: PictureJob, answer: PictureAnswer) -> dict[str, Any]:
    height, width = job.original_hw
    detections = [_detection(row, model.names, (width, height)) for row in answer.detections]
    told = {"filename": upload.name, "width": width, "height": height, "detections": detections}
    if answer.attention:
        told["attention"] = [
            {"layer": layer, "weights": [round(weight, 6) for weight in weights]}
            for layer, weights in answer.attention.items()
        ]
    return told


def _detection(row: Sequence[float], names: dict[int, str], size_wh: tuple[int, int]) -> dict[str, Any]:
    *xyxy, confidence, number = row
    return {
        "xyxy": [round(value, 2) for value in xyxy],
        "xyxyn": [round(value / side, 6) for value, side in zip(xyxy, size_wh * 2, strict=True)],
        "class": int(number),
        "name": names[int(number)],
        "confidence": confidence,  # as it is: who filters by it gets what a request with that threshold gets
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


def _problem(status: int, told: str, headers: dict[str, str] | None = None) -> JSONResponse:
    more = {"Retry-After": "1"} if status in (429, 503) else {}
    ends = {"Connection": "close"} if status in (408, 413, 503) else {}  # the rest of the body is not waited for
    return JSONResponse({"error": told}, status, headers={**(headers or {}), **more, **ends})


def _http_problem(error: HTTPException) -> JSONResponse:
    """What the framework refuses: paths and methods that there are not."""
    told = REFUSALS.get(error.status_code, str(error.detail))
    return _problem(error.status_code, told, dict(error.headers or {}))


class _until:  # noqa: N801  (reads as a word: with _until(30, 504, "an answer"))
    """A block that raises ServiceError where it takes more seconds than that."""

    def __init__(self, seconds: float, status: int, what: str) -> None:
        self._scope, self._error = (
            anyio.fail_after(seconds),
            ServiceError(status, f"{what} was expected in {seconds:g} s"),
        )

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(self, *exc_info: Any) -> bool | None:
        try:
            return self._scope.__exit__(*exc_info)
        except TimeoutError as error:
            raise self._error from error
