"""The models behind HTTP: routes, and a request's way from its upload to its answer. Not for the process around it:
engine/server.py."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from engine.batching import Batcher
from engine.served_model import PictureAnswer, PictureJob, ServedModel, Thresholds
from engine.service_docs import POLICY, docs_page
from engine.service_form import Form, Upload, read_form
from engine.service_limits import UPLOADS, Limits, ServiceError, Share, UploadMemory, quoted
from engine.service_options import DetectOptions, parse_fields
from engine.service_pictures import decoded_picture
from engine.service_schema import DETECT, DETECTED, HEALTH, MODELS, PROBLEMS, Health, ModelsAnswer
from utils.class_names import class_numbers
from utils.errors import InputError

PAGE = Path(__file__).parent / "page"
DECODERS = min(8, max(1, (os.cpu_count() or 1) // 2))  # threads; the other cores are the network's
ABOUT = "Pictures in, boxes out. Nothing of a picture is kept."


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
    app.add_exception_handler(HTTPException, lambda request, error: _http_problem(request, error))
    app.add_exception_handler(ClientDisconnect, lambda *_: _problem(400, "a whole body was expected, got a part"))
    app.add_exception_handler(Exception, lambda *_: _problem(500, "a fault of the service, which its log tells"))
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    described = service.described()

    @app.post("/v1/detect", responses={200: DETECTED, **PROBLEMS}, openapi_extra=DETECT)
    async def detect(request: Request) -> JSONResponse:
        """Finds objects in pictures."""
        return JSONResponse(await service.detect(request))

    @app.get("/v1/models", responses={200: {"model": ModelsAnswer}}, openapi_extra=MODELS)
    async def models() -> JSONResponse:
        """The models that can be asked, the default first, and what a request may ask for."""
        return JSONResponse(described)

    @app.get("/healthz", responses={200: {"model": Health}, 503: PROBLEMS[503]}, openapi_extra=HEALTH)
    async def healthz() -> JSONResponse:
        """Whether requests are answered."""
        return _problem(503, "the service is stopping") if service.stopping else JSONResponse({"status": "ok"})

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        page = docs_page(app.openapi(), str(request.base_url).rstrip("/"))
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

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


def _problem(status: int, told: str, headers: dict[str, str] | None = None) -> JSONResponse:
    more = {"Retry-After": "1"} if status in (429, 503) else {}
    ends = {"Connection": "close"} if status in (408, 413, 503) else {}  # the rest of the body is not waited for
    return JSONResponse({"error": told}, status, headers={**(headers or {}), **more, **ends})


def _http_problem(request: Request, error: HTTPException) -> JSONResponse:
    """What the framework refuses: paths and methods that there are not."""
    method, path = quoted(request.method).strip("'"), quoted(request.scope["path"])
    headers, told = dict(error.headers or {}), str(error.detail)
    if error.status_code == 404:
        told = f"one of {_offered(request.app)} was expected, got {method} {path}"
    elif error.status_code == 405:
        told = f"{path}: the method {headers.get('Allow', 'GET')} was expected, got {method}"
    return _problem(error.status_code, told, headers)


def _offered(app: FastAPI) -> str:
    """The routes: GET /, GET /docs, ..."""
    routes = sorted((route for route in app.routes if isinstance(route, Route)), key=lambda route: route.path)
    return ", ".join(f"{method} {route.path}" for route in routes for method in (route.methods or set()) - {"HEAD"})


@contextmanager
def _until(seconds: float, status: int, what: str) -> Iterator[None]:
    """A block that raises ServiceError where it takes more seconds than that."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError as error:
        raise ServiceError(status, f"{what} was expected in {seconds:g} s") from error
