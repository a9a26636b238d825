"""How the station is: health, metrics, what happened, the live view, sessions, cameras."""

from __future__ import annotations

import importlib.metadata
import statistics
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, Field

from fewshot_ad.errors import NotEnrolledError
from fewshot_ad.line.record import Record, utc_now
from fewshot_ad.line.station.access import COOKIE, WRONG_TOKEN_S, knows_token, merged, same, session_of
from fewshot_ad.line.station.condition import blocking, disk_free
from fewshot_ad.line.station.condition import problems as problems_of
from fewshot_ad.line.station.metrics import CONTENT_TYPE
from fewshot_ad.line.station.routes.common import Running, RunningStation, jpeg
from fewshot_ad.line.station.station import Station

router = APIRouter(tags=["operation"])

CameraName = Annotated[str, Path(max_length=300, description="Name of the camera.")]
# How long a browser stays signed in: a shift and its breaks.
SESSION_S = 12 * 3600


class SinkHealth(BaseModel):
    """What verdicts go to."""

    name: str
    connected: bool
    waiting: int = Field(description="Records that it has not taken yet.")
    error: str


class SourceHealth(BaseModel):
    """What images come from."""

    name: str
    running: bool
    error: str
    seen: int


class Health(BaseModel):
    """How the station is."""

    status: str = Field(description="ok, or trouble")
    problems: list[str] = Field(description="What is wrong, and what to do.")
    station: str
    version: str
    started: str
    now: str
    products: int
    waiting: int = Field(description="Images that wait or are inspected.")
    inspections: int = Field(description="Since the start.")
    latency_ms: dict[str, float] = Field(description="p50, p95 and p99 of the latest inspections.")
    disk_free: dict[str, int] = Field(description="Bytes.")
    pictures: dict[str, Any] = Field(description="What is kept, the bytes it takes, and the quota.")
    sinks: list[SinkHealth]
    sources: list[SourceHealth]


class EventAnswer(BaseModel):
    """Something that happened."""

    seq: int
    station: str
    time: str
    kind: str
    text: str


class Token(BaseModel):
    """What opens a session."""

    token: str = Field(max_length=4096)


class Session(BaseModel):
    """Whether a caller is let in."""

    needed: bool = Field(description="Whether the station asks for a token.")
    open: bool = Field(description="Whether this caller has it.")


class Live(BaseModel):
    """What a screen beside the line shows."""

    record: Record | None = Field(description="The latest inspection; null if there was none since the start.")
    counts: dict[str, int] = Field(description="Inspections since the start, by verdict.")
    waiting: int
    trouble: str = Field(description="Empty if there is none.")


@router.get("/healthz", response_model=dict[str, str], responses=merged((503,)))
async def alive(running: RunningStation) -> Any:
    """Whether the station works, for what watches over it; no token is needed."""
    # What keeps verdicts from being given or written down; a full disk or a sink that is down does not.
    if await to_thread.run_sync(blocking, running.station):
        raise HTTPException(503, "trouble: see /api/health")
    return {"status": "ok"}


@router.get("/api/health", response_model=Health, responses=merged(()))
def health(running: RunningStation) -> Health:
    """How the station is, and what is wrong."""
    return health_of(running)


def health_of(running: Running) -> Health:
    """How a station is."""
    station, settings = running.station, running.station.settings
    sinks = [SinkHealth(**vars(publisher.state)) for publisher in running.publishers]
    sources = [SourceHealth(**vars(source.state)) for source in running.sources]
    problems = problems_of(station)
    problems += [f"{sink.name}: {sink.error}" for sink in sinks if sink.error]
    problems += [f"{source.name}: {source.error}" for source in sources if source.error]
    return Health(
        status="trouble" if problems else "ok",
        problems=problems,
        station=settings.station,
        version=importlib.metadata.version("fewshot-ad"),
        started=station.started.isoformat(),
        now=utc_now().isoformat(),
        products=_count(station),
        waiting=station.waiting,
        inspections=sum(station.counts().values()),
        latency_ms=_quantiles(station.latencies()),
        disk_free=disk_free(station),
        pictures={
            "keep": settings.pictures.keep,
            "bytes": station.pictures.nbytes,
            "quota": int(settings.pictures.quota_mb * 1e6),
        },
        sinks=sinks,
        sources=sources,
    )


@router.get("/metrics", response_class=Response, responses={**merged(()), 200: {"content": {"text/plain": {}}}})
def metrics(running: RunningStation) -> Response:
    """Counters and gauges for Prometheus."""
    return Response(running.metrics.text(), media_type=CONTENT_TYPE)


@router.get("/api/live", response_model=Live, responses=merged(()))
def live(running: RunningStation) -> Live:
    """The latest verdict and the counts since the start."""
    station = running.station
    return Live(
        record=station.latest,
        counts={str(verdict): count for verdict, count in station.counts().items()},
        waiting=station.waiting,
        trouble=station.trouble,
    )


@router.get("/api/events", response_model=list[EventAnswer], responses=merged(()))
def events(running: RunningStation, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[EventAnswer]:
    """Starts, stops, what was lost, what was dropped; the latest first."""
    found = running.station.journal.events(limit)
    return [EventAnswer(**{**event._asdict(), "time": event.time.isoformat()}) for event in found]


@router.get("/api/session", response_model=Session, responses=merged(()))
def session(request: Request, running: RunningStation) -> Session:
    """Whether a token is needed, and whether this caller has it."""
    return Session(needed=running.token is not None, open=knows_token(request.headers, running.token))


@router.post("/api/session", response_model=Session, responses=merged(()))
async def sign_in(response: Response, running: RunningStation, body: Token) -> Session:
    """Open a session: the browser keeps a cookie that no script can read."""
    import asyncio

    if running.token is not None:
        if not same(body.token, running.token):
            await asyncio.sleep(WRONG_TOKEN_S)
            raise HTTPException(401, "expected the station's token, got another one.")
        response.set_cookie(COOKIE, session_of(running.token), max_age=SESSION_S, httponly=True, samesite="strict")
    return Session(needed=running.token is not None, open=True)


@router.delete("/api/session", response_model=Session, responses=merged(()))
def sign_out(response: Response, running: RunningStation) -> Session:
    """End the session."""
    response.delete_cookie(COOKIE)
    return Session(needed=running.token is not None, open=running.token is None)


@router.get("/api/cameras", response_model=list[SourceHealth], responses=merged(()))
def cameras(running: RunningStation) -> list[SourceHealth]:
    """The cameras that the station looks through."""
    return [SourceHealth(**{**vars(one.state), "name": name}) for name, one in running.cameras.items()]


@router.get(
    "/api/cameras/{camera}/frame",
    response_class=Response,
    responses={**merged((404,)), 200: {"content": {"image/jpeg": {}}, "description": "The newest image."}},
)
def frame(running: RunningStation, camera: CameraName) -> Response:
    """The newest image of a camera."""
    found = _camera(running, camera).latest()
    if found is None:
        raise HTTPException(404, f"expected an image from {camera}, got none yet. Check the camera.")
    return jpeg(found)


@router.post("/api/cameras/{camera}/trigger", response_model=Record, responses=merged((404, 503, 507)))
async def trigger(running: RunningStation, camera: CameraName) -> Any:
    """Inspect what a camera shows now."""
    source = _camera(running, camera)
    record = await to_thread.run_sync(source.trigger)
    return Response(record.to_json(), media_type="application/json")


def _count(station: Station) -> int:
    try:
        return len(station.products)
    except NotEnrolledError:
        return 0


def _camera(running: Running, name: str) -> Any:
    if name not in running.cameras:
        raise HTTPException(404, f"expected one of {len(running.cameras)} cameras, got {name!r}.")
    return running.cameras[name]


def _quantiles(values: list[float]) -> dict[str, float]:
    if len(values) < 2:
        return {f"p{share}": round(values[0], 2) for share in (50, 95, 99)} if values else {}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {f"p{share}": round(cuts[share - 1], 2) for share in (50, 95, 99)}
