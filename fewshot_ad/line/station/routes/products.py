"""Products over HTTP: listed, taught, corrected, checked, deleted and restored; and the work that takes long."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, File, Form, HTTPException, Query, Request, Response, UploadFile
from pydantic import BaseModel, Field

from fewshot_ad.line.station.access import merged
from fewshot_ad.line.station.routes.common import (
    JobAnswer,
    JobId,
    ProductName,
    Running,
    RunningStation,
    job_answer,
    options_of,
    png,
    uploads,
)
from fewshot_ad.line.station.routes.inspections import (
    IMAGE_BODY,
    CorrectionAnswer,
    correction_answer,
    sent_image,
)
from fewshot_ad.line.station.shelf import ConflictError
from fewshot_ad.line.station.teaching import OPTIONS
from fewshot_ad.line.station.uploads import Upload

router = APIRouter(tags=["products"])

Images = Annotated[list[UploadFile], File(description="Images.")]
Options = Annotated[
    str, Form(description=f"JSON of arguments of Inspector.from_support: {', '.join(OPTIONS)}.", max_length=100_000)
]


class ProductEntry(BaseModel):
    """A product in the list."""

    name: str
    bytes: int
    changed: float = Field(description="When its file was written, in seconds since 1970.")
    baseline: str | None = Field(description="The fitted baseline that judges it; null for this package.")


class DeletedEntry(BaseModel):
    """A product that can be had back."""

    id: str
    product: str


class Name(BaseModel):
    """The name of a product."""

    product: str


@router.get("/api/products", response_model=list[ProductEntry], responses=merged(()))
def products(running: RunningStation) -> list[ProductEntry]:
    """The products that there are."""
    found = []
    catalog = running.station.catalog
    for name in catalog.names:
        try:
            status = catalog.path(name).stat()
        except FileNotFoundError:
            continue
        if name in running.station.baselines:
            continue
        found.append(ProductEntry(name=name, bytes=status.st_size, changed=status.st_mtime, baseline=None))
    for name, baseline in running.station.baselines.items():
        method, nbytes = baseline.judge.name, baseline.nbytes
        found.append(ProductEntry(name=name, bytes=nbytes, changed=baseline.changed, baseline=method))
    return sorted(found, key=lambda entry: entry.name)


@router.get("/api/products/{product}", response_model=dict[str, Any], responses=merged((404, 500)))
def product(running: RunningStation, product: ProductName) -> Any:
    """All that is known of a product, docs/reference/schemas/product.json; of a fitted baseline, fit.json."""
    return running.teaching.shelf.describe(product)


@router.post("/api/products/{product}", status_code=202, response_model=JobAnswer, responses=merged((409, 503)))
async def enroll(
    running: RunningStation,
    product: ProductName,
    images: Images,
    options: Options = "{}",
    replace: Annotated[bool, Form(description="Whether one of that name makes way.")] = False,
) -> JobAnswer:
    """Teach a product from 2 images of good parts or more; the work is followed at /api/jobs/ID."""
    sent = await uploads(images, running)
    return job_answer(running.teaching.enroll(product, sent, options_of(options), replace=replace))


@router.delete("/api/products/{product}", response_model=DeletedEntry, responses=merged((404, 409, 500)))
def delete(running: RunningStation, product: ProductName) -> DeletedEntry:
    """Take a product out of the catalog; /api/deleted/ID/restore brings it back."""
    return DeletedEntry(**running.teaching.shelf.delete(product)._asdict())


@router.get("/api/deleted", response_model=list[DeletedEntry], responses=merged(()))
def deleted(running: RunningStation) -> list[DeletedEntry]:
    """The products that can be had back."""
    return [DeletedEntry(**one._asdict()) for one in running.teaching.shelf.deleted()]


@router.post("/api/deleted/{deleted_id}/restore", response_model=Name, responses=merged((404, 409, 500)))
def restore(running: RunningStation, deleted_id: JobId) -> Name:
    """Bring a deleted product back."""
    return Name(product=running.teaching.shelf.restore(deleted_id))


@router.post("/api/products/{product}/check", status_code=202, response_model=JobAnswer, responses=merged((404, 503)))
async def check(running: RunningStation, product: ProductName, good: Images, bad: Images = []) -> JobAnswer:  # noqa: B006
    """Judge images whose truth is known; nothing changes."""
    return job_answer(running.teaching.check(product, await uploads(good, running), await uploads(bad, running)))


@router.post(
    "/api/products/{product}/calibrate", status_code=202, response_model=JobAnswer, responses=merged((404, 409, 503))
)
async def calibrate(
    running: RunningStation,
    product: ProductName,
    good: Images,
    bad: Images = [],  # noqa: B006 - FastAPI copies it
    max_false_reject: Annotated[
        float | None, Form(gt=0, le=0.5, description="Share of good parts that may be rejected.")
    ] = None,
    max_review: Annotated[
        float | None, Form(gt=0, le=0.5, description="Share of good parts that may have to be looked at.")
    ] = None,
) -> JobAnswer:
    """Set the threshold from further images; `undo` takes it back."""
    sent = await uploads(good, running), await uploads(bad, running)
    return job_answer(running.teaching.calibrate(product, *sent, max_false_reject, max_review))


@router.post(
    "/api/products/{product}/accept",
    response_model=CorrectionAnswer,
    openapi_extra=IMAGE_BODY,
    responses=merged((404, 409, 415, 500, 507)),
)
async def accept(
    request: Request,
    running: RunningStation,
    product: ProductName,
    force: Annotated[bool, Query(description="See Inspector.accept.")] = False,
) -> CorrectionAnswer:
    """Take an image of a good part that was rejected: images like it are good from then on."""
    return await _correct_with(request, running, product, "accept", None, force)


@router.post(
    "/api/products/{product}/reject",
    response_model=CorrectionAnswer,
    openapi_extra=IMAGE_BODY,
    responses=merged((404, 409, 415, 500, 507)),
)
async def reject(
    request: Request,
    running: RunningStation,
    product: ProductName,
    region: Annotated[str | None, Query(pattern=r"^\d{1,6}(,\d{1,6}){3}$", description="x,y,width,height")] = None,
) -> CorrectionAnswer:
    """Keep an image of a defective part as evidence."""
    place = None if region is None else [int(number) for number in region.split(",")]
    return await _correct_with(request, running, product, "reject", place, False)


async def _correct_with(
    request: Request, running: Running, product: str, action: Any, region: list[int] | None, force: bool
) -> CorrectionAnswer:
    name, data = await sent_image(request, running)

    def work() -> Any:
        return running.teaching.correct_with(product, action, Upload(name, data), region, force=force)

    return correction_answer(await to_thread.run_sync(work))


@router.post("/api/products/{product}/undo", response_model=CorrectionAnswer, responses=merged((404, 409, 500, 507)))
def undo(running: RunningStation, product: ProductName) -> CorrectionAnswer:
    """Take the last change of a product back."""
    return correction_answer(running.teaching.undo(product))


@router.get("/api/products/{product}/drift", response_model=dict[str, Any], responses=merged((404, 409, 500)))
def drift(running: RunningStation, product: ProductName) -> Any:
    """Whether light, camera or part have changed since the station was started, docs/reference/schemas/drift.json."""
    if product in running.station.baselines:
        raise ConflictError(
            f"expected a product that was enrolled, got {product!r}, which a fitted baseline judges: only products "
            "know what their good images look like. Watch its verdicts."
        )
    return running.station.watch.drift(product).as_dict()


@router.get(
    "/api/products/{product}/limits.png",
    response_class=Response,
    responses={**merged((404, 409, 500)), 200: {"content": {"image/png": {}}, "description": "The picture."}},
)
def limits(running: RunningStation, product: ProductName) -> Response:
    """What the product sees and what it does not, as a picture."""
    return png(running.teaching.limits_picture(product))


@router.get("/api/jobs", response_model=list[JobAnswer], responses=merged(()))
def jobs(running: RunningStation) -> list[JobAnswer]:
    """Enrollments, checks and calibrations, the latest first."""
    return [job_answer(job) for job in running.jobs.all()]


@router.get("/api/jobs/{job_id}", response_model=JobAnswer, responses=merged((404,)))
def job(running: RunningStation, job_id: JobId) -> JobAnswer:
    """How far a piece of work is."""
    found = running.jobs.get(job_id)
    if found is None:
        raise HTTPException(404, f"expected the id of a piece of work, got {job_id}, which is none.")
    return job_answer(found)


@router.delete("/api/jobs/{job_id}", response_model=JobAnswer, responses=merged((404,)))
def cancel(running: RunningStation, job_id: JobId) -> JobAnswer:
    """End a piece of work; nothing of it stays."""
    found = running.jobs.get(job_id)
    if found is None:
        raise HTTPException(404, f"expected the id of a piece of work, got {job_id}, which is none.")
    running.jobs.cancel(found)
    return job_answer(found)
