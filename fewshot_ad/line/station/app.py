"""The station as a web application: routes, access, errors in one form."""

from __future__ import annotations

import importlib.metadata
import logging
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.staticfiles import StaticFiles

from fewshot_ad.errors import (
    ArgumentError,
    ArtifactError,
    FewshotADError,
    ImageError,
    NotEnrolledError,
    StationError,
    SupportSetError,
)
from fewshot_ad.failures import explanation
from fewshot_ad.line.journal import JournalError
from fewshot_ad.line.sources.source import BusyError
from fewshot_ad.line.station.access import Access, error_response
from fewshot_ad.line.station.routes import inspections, operation, products
from fewshot_ad.line.station.routes.common import Failure, Running
from fewshot_ad.line.station.shelf import ConflictError
from fewshot_ad.line.station.station import KeyReusedError, UnrecordedError

logger = logging.getLogger(__name__)

# Seconds after which who was told to come again should.
RETRY_S = 1
DESCRIPTION = """Inspects images with the products of a catalog and keeps a journal of every verdict.

Every error has the form of `Failure`. With a token, send `Authorization: Bearer TOKEN`."""
# What an error of the package means over HTTP, the first that fits.
_STATUS: tuple[tuple[type[FewshotADError], int], ...] = (
    (BusyError, 503),
    (UnrecordedError, 507),
    (JournalError, 507),
    (ConflictError, 409),
    (KeyReusedError, 409),
    (NotEnrolledError, 404),
    (ArtifactError, 500),
    (SupportSetError, 422),
    (ImageError, 422),
    (ArgumentError, 422),
    (StationError, 503),
)


def create_app(running: Running, *, on_start: Any = None, on_stop: Any = None) -> FastAPI:
    """The application of a running station.

    Args:
        running: The station and what belongs to it.
        on_start: Called when the server is up, on the thread of the server.
        on_stop: Called once no request is under way any more.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if on_start is not None:
            on_start()
        yield
        if on_stop is not None:
            on_stop()

    settings = running.station.settings
    # No page of FastAPI's own: it would load its script from elsewhere.
    app = FastAPI(
        title=f"fewshot_ad station {settings.station}",
        version=importlib.metadata.version("fewshot-ad"),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=lifespan,
    )
    app.state.running = running
    # A thread for each that may wait, so that those who wait for their turn keep nobody else from answers.
    app.state.inspecting = CapacityLimiter(settings.limits.queue)
    for group in (inspections, products, operation):
        app.include_router(group.router)
    # Windows takes the kind of a script from its registry, where it may be text.
    mimetypes.add_type("text/javascript", ".js")
    page = resources.files("fewshot_ad.line") / "page"
    app.mount("/page", StaticFiles(directory=str(page)), name="page")

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return Response((page / "index.html").read_bytes(), media_type="text/html")

    _add_errors(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(Access, listen=settings.listen, limits=settings.limits, token=running.token)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(FewshotADError)
    def of_the_package(_: Request, error: FewshotADError) -> Response:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        headers = {"Retry-After": str(RETRY_S)} if status == 503 else None
        more = {"record": error.record.as_dict()} if isinstance(error, UnrecordedError) else {}
        return error_response(status, explanation(error), headers, **more)

    @app.exception_handler(AnyHTTPException)
    def of_http(_: Request, error: AnyHTTPException) -> Response:
        return error_response(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    def of_a_request(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return error_response(422, f"{place}: {first['msg']}. See /api/openapi.json.")

    @app.exception_handler(Exception)
    def of_anything(_: Request, error: Exception) -> Response:
        logger.error("a request failed", exc_info=error)
        return error_response(500, explanation(error))


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = schema["components"]["schemas"]
        failure = Failure.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(failure.pop("$defs", {}))
        schemas["Failure"] = failure
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema
