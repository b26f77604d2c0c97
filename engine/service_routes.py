"""The service over HTTP: its paths, and its errors as statuses with a sentence. Not for what is answered:
engine/service.py."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from engine.service import Service
from engine.service_docs import POLICY, docs_page
from engine.service_limits import ServiceError, quoted
from engine.service_schema import DETECT, DETECTED, HEALTH, MODELS, PROBLEMS, Health, ModelsAnswer
from utils.errors import InputError

PAGE = Path(__file__).parent / "page"
ABOUT = "Pictures in, boxes out. Nothing of a picture is kept."


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


# -------------------------------------------------------------------------------------------------------------- errors
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
