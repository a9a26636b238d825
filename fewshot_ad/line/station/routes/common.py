"""What the routes share: the running station, images that are sent, and pictures that are sent back."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import cv2
from fastapi import Depends, HTTPException, Path, Query, Request, Response, UploadFile
from pydantic import BaseModel, Field

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ArgumentError
from fewshot_ad.host.lifetime import native_work
from fewshot_ad.line.record import Record, RecordVerdict
from fewshot_ad.line.sources.source import BusyError
from fewshot_ad.line.station.jobs import Job, Jobs
from fewshot_ad.line.station.metrics import StationMetrics
from fewshot_ad.line.station.station import Station
from fewshot_ad.line.station.teaching import Teaching
from fewshot_ad.line.station.uploads import Upload

if TYPE_CHECKING:
    from fewshot_ad.line.sinks import Publisher
    from fewshot_ad.line.sinks.replica import Replicator
    from fewshot_ad.line.sources.camera import CameraSource
    from fewshot_ad.line.sources.source import Source


@dataclass
class Running:
    """A station and what belongs to it while it runs.

    Attributes:
        station: It.
        jobs: Long work.
        teaching: Changes products.
        metrics: For Prometheus.
        token: What callers must know; None for nothing.
        sources: What images come from.
        publishers: What records go to.
        cameras: Those of the sources that are cameras, by name.
    """

    station: Station
    jobs: Jobs
    teaching: Teaching
    metrics: StationMetrics
    token: str | None = None
    sources: list[Source] = field(default_factory=list)
    publishers: list[Publisher | Replicator] = field(default_factory=list)
    cameras: dict[str, CameraSource] = field(default_factory=dict)
    _uploads: int = 0

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """A place among those who send an image; on the thread of the server alone.

        Raises:
            BusyError: There are twice as many as may wait for an inspection.
        """
        most = 2 * self.station.settings.limits.queue
        if self._uploads >= most:
            raise BusyError(f"expected at most {most} images that are being sent, got one more. Send it again later.")
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1


def _running(request: Request) -> Running:
    running: Running = request.app.state.running
    return running


RunningStation: TypeAlias = Annotated[Running, Depends(_running)]
ProductName: TypeAlias = Annotated[str, Path(description="Name of the product.", min_length=1, max_length=255)]
RecordId: TypeAlias = Annotated[str, Path(description="Id of the inspection.", pattern=r"^[0-9a-f]{32}$")]
JobId: TypeAlias = Annotated[str, Path(description="Id of the work.", pattern=r"^[0-9a-f]{32}$")]
Verdicts: TypeAlias = Annotated[list[RecordVerdict], Query(description="Only these verdicts.")]
Since: TypeAlias = Annotated[datetime.datetime | None, Query(description="Not before this time (ISO 8601).")]
Until: TypeAlias = Annotated[datetime.datetime | None, Query(description="Before this time (ISO 8601).")]


class Failure(BaseModel):
    """An error, docs/reference/schemas/error.json."""

    schema_: str = Field("fewshot-ad/error/1", alias="schema")
    error: str = Field(description="What was expected, what was found, and what to do.")
    record: Record | None = Field(None, description="The verdict that was not recorded, or of what is no image.")


class JobAnswer(BaseModel):
    """A piece of long work."""

    id: str
    kind: str
    product: str
    state: str = Field(description="waiting, running, done, failed or canceled")
    stage: str
    done: int
    total: int
    result: dict[str, Any] | None
    error: str


def job_answer(job: Job) -> JobAnswer:
    """A piece of work as it stands."""
    return JobAnswer(**job.as_dict())


def zoned(moment: datetime.datetime | None) -> datetime.datetime | None:
    """A time with its zone; one without is the computer's own."""
    if moment is None or moment.tzinfo is not None:
        return moment
    try:
        return moment.astimezone()
    except (OverflowError, OSError):
        raise ArgumentError(f"expected a time between 1970 and 9998, got {moment.isoformat()}.") from None


async def uploads(files: Sequence[UploadFile], running: Running) -> list[Upload]:
    """Images that were sent, within the limits.

    Raises:
        HTTPException: There are too many, or one is too large.
    """
    limits = running.station.settings.limits
    if len(files) > limits.images:
        raise HTTPException(413, f"expected at most {limits.images} images, got {len(files)}. Send fewer.")
    images = []
    for file in files:
        data = await file.read()
        check_bytes(data, running)
        images.append(Upload(file.filename or "", data))
    return images


def check_bytes(data: bytes, running: Running) -> None:
    """Refuse an image of too many bytes.

    Raises:
        HTTPException: It is larger than the limits allow.
    """
    limit = running.station.settings.limits.image_mb
    if len(data) > limit * 1e6:
        raise HTTPException(413, f"expected an image of at most {limit:g} MB, got {len(data) / 1e6:.1f} MB.")


def options_of(text: str) -> dict[str, Any]:
    """The options of an enrollment from JSON.

    Raises:
        ArgumentError: They are none.
    """
    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise ArgumentError('expected options as JSON, such as {"preset": "fast"}, got something else.')
    return options


@native_work()
def png(picture: Uint8Array) -> Response:
    """A picture (H, W, 3) uint8 RGB as PNG."""
    return Response(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes(), media_type="image/png")


@native_work()
def jpeg(picture: Uint8Array) -> Response:
    """A picture (H, W, 3) uint8 RGB as JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 85]
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1]
    return Response(encoded.tobytes(), media_type="image/jpeg")
