"""Inspecting over HTTP, and what was inspected: history, pictures, corrections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Body, Header, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.responses import StreamingResponse

from fewshot_ad.line.journal import Selection, media_type
from fewshot_ad.line.journal.exporting import csv_lines, html_page, rows
from fewshot_ad.line.record import Record, RecordVerdict, utc_now
from fewshot_ad.line.station.access import error_response, merged
from fewshot_ad.line.station.routes.common import (
    ProductName,
    RecordId,
    Running,
    RunningStation,
    Since,
    Until,
    Verdicts,
    check_bytes,
    jpeg,
    png,
    zoned,
)
from fewshot_ad.line.station.sent import overlay_jpeg

router = APIRouter(tags=["inspections"])

IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An image: its bytes as they are, or a form with a file in the field `image`.",
        "content": {
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "string", "format": "binary"}},
                    "required": ["image"],
                }
            },
        },
    }
}
_REFUSED = ("text/", "application/json", "application/xml", "application/x-www-form-urlencoded")
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Gives the verdict of an earlier request with the same key, if there was one.",
        min_length=1,
        max_length=200,
    ),
]
Called = Annotated[str, Query(description="What the image is called.", max_length=300)]


class HistoryEntry(Record):
    """A record, its number, and what was said of it."""

    seq: int
    correction: str | None = Field(None, description="accept, reject or confirm, unless it was taken back")


class History(BaseModel):
    """Records, the latest first."""

    records: list[HistoryEntry]
    next: int | None = Field(description="`before` of the records that follow; null for none.")


class Said(BaseModel):
    """What was said of a record."""

    action: str | None = Field(description="accept, reject or confirm; null for nothing, or where it was taken back")


class CorrectionRequest(BaseModel):
    """How a verdict is corrected."""

    region: Annotated[list[int], Field(min_length=4, max_length=4)] | None = Field(
        default=None, description="Of reject: x, y, width, height of the defect in pixels."
    )
    force: bool = Field(
        default=False, description="Of accept: although it is like a known defect, or lets defects pass."
    )


class CorrectionAnswer(BaseModel):
    """What a correction has done."""

    id: str
    action: str
    product: str
    record: str | None
    artifact: str
    notes: list[str]


@router.post(
    "/api/inspect",
    response_model=Record,
    openapi_extra=IMAGE_BODY,
    responses=merged((404, 409, 415, 500, 503, 507)),
)
async def inspect(request: Request, running: RunningStation, name: Called = "", key: Key = None) -> Any:
    """Inspect an image; which of the products it shows is found out."""
    return await _inspect(request, running, None, name, key)


@router.post(
    "/api/products/{product}/inspect",
    response_model=Record,
    openapi_extra=IMAGE_BODY,
    responses=merged((404, 409, 415, 500, 503, 507)),
)
async def inspect_as(
    request: Request, running: RunningStation, product: ProductName, name: Called = "", key: Key = None
) -> Any:
    """Inspect an image as one of the products."""
    return await _inspect(request, running, product, name, key)


async def _inspect(request: Request, running: Running, product: str | None, name: str, key: str | None) -> Any:
    station = running.station
    # Before a byte of it is taken in; and not in the queue of the line: who sends slowly must not keep a PLC waiting.
    with running.uploading():
        sent_as, image = await sent_image(request, running)
    with station.slot():

        def work() -> Record:
            return station.inspect_in_slot(image, product=product, source="http", name=name or sent_as, key=key)

        began = utc_now()
        limiter: CapacityLimiter = request.app.state.inspecting
        record = await to_thread.run_sync(work, limiter=limiter)
    # An answer to an earlier request with this key, which may have been of another part.
    replayed = {"Idempotent-Replayed": "true"} if key is not None and record.time < began else {}
    if record.verdict == "unreadable":
        return error_response(422, record.reason, replayed, record=record.as_dict())
    return Response(record.to_json(), media_type="application/json", headers=replayed)


async def sent_image(request: Request, running: Running) -> tuple[str, bytes]:
    """The name and the bytes of an image that a request brings.

    Raises:
        HTTPException: It brings none, or one that is too large.
    """
    kind = request.headers.get("content-type", "").casefold()
    if kind.startswith(_REFUSED):
        raise HTTPException(
            415, f"expected an image (image/jpeg, image/png, or a form with the field image), got {kind[:60]}."
        )
    if not kind.startswith("multipart/"):
        name, data = "", await request.body()
    else:
        async with request.form(max_files=1, max_fields=5) as form:
            file = form.get("image")
            if not isinstance(file, UploadFile):
                raise HTTPException(422, "expected a file in the field `image` of the form, got none.")
            name, data = (file.filename or "")[:300], await file.read()
    check_bytes(data, running)
    return name, data


@router.get("/api/inspections", response_model=History, responses=merged(()))
def history(
    running: RunningStation,
    product: Annotated[str | None, Query(max_length=255, description="Only of this product.")] = None,
    verdict: Verdicts = [],  # noqa: B006 - FastAPI copies it
    since: Since = None,
    until: Until = None,
    before: Annotated[int | None, Query(ge=0, le=2**62, description="Only before this number.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> History:
    """What was inspected, the latest first."""
    journal = running.station.journal
    selection = Selection(product, verdict, zoned(since), zoned(until), before=before)
    found = journal.select(selection, limit)
    said = journal.corrections_of([record.id for _, record in found])
    entries = [
        HistoryEntry(
            **record.model_dump(by_alias=True),
            seq=seq,
            correction=said[record.id].action if record.id in said else None,
        )
        for seq, record in found
    ]
    return History(records=entries, next=entries[-1].seq if len(entries) == limit else None)


@router.get("/api/counts", response_model=dict[RecordVerdict, int], responses=merged(()))
def counts(
    running: RunningStation,
    product: Annotated[str | None, Query(max_length=255, description="Only of this product.")] = None,
    since: Since = None,
    until: Until = None,
) -> Any:
    """How many inspections have each verdict."""
    return running.station.journal.counts(Selection(product, (), zoned(since), zoned(until)))


@router.get(
    "/api/export",
    response_class=StreamingResponse,
    responses={
        **merged(()),
        200: {"content": {"text/csv": {}, "text/html": {}}, "description": "The records, the oldest first."},
    },
)
def export(
    running: RunningStation,
    product: Annotated[str | None, Query(max_length=255, description="Only of this product.")] = None,
    verdict: Verdicts = [],  # noqa: B006 - FastAPI copies it
    since: Since = None,
    until: Until = None,
    form: Annotated[Literal["csv", "html"], Query(alias="format", description="csv or html")] = "csv",
) -> Response:
    """What was inspected, as a file to keep."""
    journal = running.station.journal
    selection = Selection(product, verdict, zoned(since), zoned(until))
    name = f"inspections-{utc_now():%Y-%m-%d-%H%M%S}.{form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    if form == "html":
        return Response(html_page(journal, selection), media_type="text/html", headers=headers)
    return StreamingResponse(csv_lines(rows(journal, selection)), media_type="text/csv", headers=headers)


@router.get("/api/inspections/{record_id}", response_model=Record, responses=merged((404,)))
def one(running: RunningStation, record_id: RecordId) -> Any:
    """One inspection."""
    return Response(_record(running, record_id).to_json(), media_type="application/json")


@router.get("/api/inspections/{record_id}/correction", response_model=Said, responses=merged((404,)))
def said(running: RunningStation, record_id: RecordId) -> Said:
    """What was said of the verdict on an inspection."""
    record = _record(running, record_id)
    found = running.station.journal.corrections_of([record.id]).get(record.id)
    return Said(action=None if found is None else found.action)


@router.get(
    "/api/inspections/{record_id}/image",
    response_class=Response,
    responses={**merged((404,)), 200: {"content": {"image/*": {}}, "description": "The image as it was sent."}},
)
def image(running: RunningStation, record_id: RecordId) -> Response:
    """The image of an inspection, as it was sent."""
    record = _record(running, record_id)
    sent = running.station.image_of(record)
    if sent is None:
        raise _not_kept()
    if not isinstance(sent, bytes):
        return png(sent)
    return Response(sent, media_type=media_type(sent))


@router.get(
    "/api/inspections/{record_id}/overlay.png",
    response_class=Response,
    responses={**merged((404, 500, 503)), 200: {"content": {"image/png": {}}, "description": "The overlay."}},
)
def overlay_png(running: RunningStation, record_id: RecordId) -> Response:
    """The image with what stands out marked, drawn anew with the product as it is now."""
    inspection = running.station.look_again(_record(running, record_id))
    if inspection is None:
        raise _not_kept()
    return png(inspection.overlay(bar=True))


@router.get(
    "/api/inspections/{record_id}/overlay",
    response_class=Response,
    responses={**merged((404, 500, 503)), 200: {"content": {"image/jpeg": {}}, "description": "The overlay."}},
)
def overlay(running: RunningStation, record_id: RecordId) -> Response:
    """The overlay that was kept; where none was, one that is drawn now."""
    record = _record(running, record_id)
    kept = None if record.overlay is None else running.station.pictures.read(record.overlay)
    if kept is not None:
        return Response(kept, media_type="image/jpeg")
    inspection = running.station.look_again(record)
    if inspection is None:
        raise _not_kept()
    return Response(overlay_jpeg(inspection), media_type="image/jpeg")


@router.get(
    "/api/inspections/{record_id}/nearest",
    response_class=Response,
    responses={**merged((404, 500)), 200: {"content": {"image/jpeg": {}}, "description": "The support image."}},
)
def nearest(running: RunningStation, record_id: RecordId) -> Response:
    """The support image that is most like the image of an inspection, at the working scale."""
    record = _record(running, record_id)
    sent = running.station.image_of(record)
    found = None if sent is None or not record.product else running.teaching.nearest_reference(record.product, sent)
    if found is None:
        raise _not_kept()
    return jpeg(found)


@router.post(
    "/api/inspections/{record_id}/{action}",
    response_model=CorrectionAnswer,
    responses=merged((404, 409, 500, 503, 507)),
)
def correct(
    running: RunningStation,
    record_id: RecordId,
    action: Annotated[str, Path(pattern="^(accept|reject|confirm)$")],
    body: Annotated[CorrectionRequest | None, Body()] = None,
) -> CorrectionAnswer:
    """Say what the part was: `accept` it as good, `reject` it as defective, or `confirm` the verdict."""
    wanted = body or CorrectionRequest()
    record = _record(running, record_id)
    done = running.teaching.correct(record, action, wanted.region, force=wanted.force)  # type: ignore[arg-type]
    return correction_answer(done)


def correction_answer(done: Any) -> CorrectionAnswer:
    """What a `Corrected` says."""
    return CorrectionAnswer(
        id=done.correction.id,
        action=done.correction.action,
        product=done.correction.product,
        record=done.correction.record,
        artifact=done.correction.artifact,
        notes=list(done.notes),
    )


def _record(running: Running, record_id: str) -> Record:
    record = running.station.journal.get(record_id)
    if record is None:
        raise HTTPException(404, f"expected the id of an inspection, got {record_id}, which is none.")
    return record


def _not_kept() -> HTTPException:
    return HTTPException(
        404,
        "expected an image that was kept, but this one was not, or made room for others (pictures.keep); or there is "
        "no support image of its product, as of a fitted baseline.",
    )
