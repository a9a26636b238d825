"""One job: fit, predict one image at a time, measure."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewshot_ad import metrics
from fewshot_ad.arrays import BoolArray, Float32Array
from fewshot_ad.benchmark.material import Images, Material, material, sample_name, source_samples
from fewshot_ad.benchmark.overlays import Overlays
from fewshot_ad.benchmark.plan import Job
from fewshot_ad.benchmark.record import Record
from fewshot_ad.benchmark.support import list_hash
from fewshot_ad.datasets.sample import Sample
from fewshot_ad.errors import BenchmarkError, ImageError
from fewshot_ad.images import read_image
from fewshot_ad.metrics import PixelMetrics, SaturatedRegion
from fewshot_ad.zoo import Labeled, Method, create, options

LIBRARIES = (
    *("fewshot-ad", "numpy", "opencv-python-headless", "openvino", "faiss-cpu", "torch", "torchvision", "timm"),
    *("anomalib", "lightning", "open_clip_torch", "ultralytics", "ray"),
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a job gave for one category.

    Attributes:
        record: For the record file.
        pictures: JPEG files by path relative to that file.
    """

    record: Record
    pictures: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def run(job: Job) -> list[Outcome]:
    """Do a job; one outcome a category."""
    if job.setting == "continual":
        from fewshot_ad.benchmark.continual import run_continual

        return run_continual(job)
    forget_peak()
    parts = material(job)
    method = created(job)
    support = [sample for part in parts.values() for sample in part.support]
    names = [sample_name(sample, job.dataset.root) for sample in support]
    if job.source is not None:
        learned = source_samples(job.source)
        support = [*learned, *support]
        # Each below its own dataset's folder, which may lie inside the other's.
        names = [*(sample_name(sample, job.source.root) for sample in learned), *names]
    start = time.perf_counter()
    fit(method, support, [sample for part in parts.values() for sample in part.labeled])
    fit_s = time.perf_counter() - start
    return [measured(job, category, method, part, support, names, fit_s) for category, part in parts.items()]


def created(job: Job) -> Method:
    """The method of a job; one that wants to know what the product is called is told its category, unless a plan says.

    Where one model is for several categories, there is no one name to tell.
    """
    settings = dict(job.method.options)
    if len(job.categories) == 1 and "class_name" in options(job.method.baseline):
        settings.setdefault("class_name", job.categories[0].replace("_", " "))
    return create(job.method.baseline, seed=job.seed, **settings)


def fit(method: Method, support: Sequence[Sample], labeled: Sequence[Sample] = ()) -> None:
    """Fit a method on samples."""
    defects = []
    for sample in labeled:
        image = read_image(sample.path)
        defects.append(Labeled(image, sample.mask(image.shape[:2]), sample.defect_type))
    method.fit(Images(support), defects)


def measured(
    job: Job,
    category: str,
    method: Method,
    part: Material,
    support: Sequence[Sample],
    names: Sequence[str],
    fit_s: float,
) -> Outcome:
    """Predict a category's test images and put everything on record.

    Args:
        job: What was asked for.
        category: Product to test on.
        method: Fitted.
        part: Of this category.
        support: What the method was fitted on, of all categories.
        names: Of the support images.
        fit_s: Seconds it took.
    """
    pixels, saturated = PixelMetrics(), PixelMetrics()
    has_saturations = any(sample.saturations for sample in part.test)
    overlays = Overlays(job.protocol.overlays)
    labels: list[int] = []
    scores: list[float] = []
    rejected: list[bool] = []
    times: list[float] = []
    masks = unreadable = 0
    for sample in part.test:
        try:
            image = read_image(sample.path)
        except ImageError:
            unreadable += 1
            continue
        start = time.perf_counter()
        said = method.predict([image])
        times.append((time.perf_counter() - start) * 1e3)
        labels.append(sample.label)
        scores.append(float(said.scores[0]))
        if said.rejected is not None:
            rejected.append(bool(said.rejected[0]))
        if said.maps is None:
            continue
        mask = sample.mask(image.shape[:2]) if sample.has_mask else None
        if mask is not None:
            masks += 1
            heat, small = _at_side(said.maps[0], mask, job.protocol.pixel_side)
            pixels.add(heat, small)
            if has_saturations:
                saturated.add_saturated(heat, _regions_at_side(sample, image.shape[:2], job.protocol.pixel_side))
        overlays.offer(image, mask, said.maps[0], sample.label)
    if not np.isfinite(scores).all():
        raise BenchmarkError(f"expected finite scores, got {np.sum(~np.isfinite(scores))} that are not.")
    decisions = rejected if len(rejected) == len(scores) else None
    figures = image_figures(labels, scores, decisions)
    if masks and any(s.label and s.has_mask for s in part.test):
        figures |= _pixel_figures(pixels)
        if has_saturations:
            enough = saturated.result()
            figures |= {"au_spro": enough.au_pro, "au_spro_05": enough.au_pro_05}
    # Of one model for many categories, each record has the names of its own alone; the hash and the count are of all.
    own = [name for name, sample in zip(names, support, strict=True) if sample.category == category]
    pictures = overlays.pictures(job.key(category))
    record = Record(
        **_identity(job, category),
        status="done",
        figures={name: float(value) for name, value in figures.items() if np.isfinite(value)},
        intervals=_intervals(labels, scores, decisions, job.protocol.bootstrap, job.seed),
        fit_s=fit_s,
        ms=float(np.median(times)),
        ms_p95=float(np.percentile(times, 95)),
        model_mb=method.model_bytes() / 1e6,
        memory_mb=_peak_megabytes(),
        counts={
            "support": len(support),
            "test_good": labels.count(0),
            "test_defective": labels.count(1),
            "masks": masks,
            "unreadable": unreadable,
            **part.copy,
        },
        support=tuple(own if len(job.categories) > 1 else names),
        support_sha256=list_hash(names),
        overlays=tuple(pictures),
        versions=_versions(),
        machine=_machine(),
        date=_now(),
    )
    return Outcome(record, pictures)


def image_figures(labels: Sequence[int], scores: Sequence[float], rejected: Sequence[bool] | None) -> dict[str, float]:
    """The figures of merit of whole images."""
    figures = {
        "image_auroc": metrics.auroc(labels, scores),
        "image_aupr": metrics.aupr(labels, scores),
        "image_f1_max": metrics.f1_max(labels, scores)[0],
    }
    if rejected is not None:
        decided = metrics.at_threshold(labels, rejected)
        figures |= {
            "precision": decided.precision,
            "recall": decided.recall,
            "f1": decided.f1,
            "false_reject_rate": decided.false_reject_rate,
            "escape_rate": decided.escape_rate,
            "balanced_accuracy": decided.balanced_accuracy,
        }
    return figures


def _intervals(
    labels: Sequence[int], scores: Sequence[float], rejected: Sequence[bool] | None, repeats: int, seed: int
) -> dict[str, metrics.Interval]:
    """Of the figures of whole images; those of maps would need all maps in memory."""
    if not repeats or not 0 < sum(labels) < len(labels):
        return {}
    found = {
        "image_auroc": metrics.bootstrap(metrics.auroc, labels, scores, repeats, seed=seed),
        "image_aupr": metrics.bootstrap(metrics.aupr, labels, scores, repeats, seed=seed),
        "image_f1_max": metrics.bootstrap(metrics.f1_max, labels, scores, repeats, seed=seed),
    }
    if rejected is not None:
        found |= {
            "false_reject_rate": metrics.bootstrap(metrics.false_reject_rate, labels, rejected, repeats, seed=seed),
            "escape_rate": metrics.bootstrap(metrics.escape_rate, labels, rejected, repeats, seed=seed),
        }
    return found


def _pixel_figures(pixels: PixelMetrics) -> dict[str, float]:
    result = pixels.result()
    return {
        "pixel_auroc": result.auroc,
        "pixel_aupr": result.aupr,
        "pixel_f1_max": result.f1_max,
        "pixel_iou_max": result.iou_max,
        "au_pro": result.au_pro,
        "au_pro_05": result.au_pro_05,
    }


def _at_side(heat: Float32Array, mask: BoolArray, side: int | None) -> tuple[Float32Array, BoolArray]:
    if side is None:
        return heat, mask
    return cv2.resize(heat, (side, side), interpolation=cv2.INTER_AREA), _mask_at_side(mask, side)


def _mask_at_side(mask: BoolArray, side: int) -> BoolArray:
    small = cv2.resize(mask.astype(np.uint8) * 255, (side, side), interpolation=cv2.INTER_AREA)
    defective = small > 127
    if mask.any() and not defective.any():
        # Thinner than a pixel: finding it must not count as a false alarm.
        defective = small > 0
    return np.asarray(defective)


def _regions_at_side(sample: Sample, hw: tuple[int, int], side: int | None) -> list[SaturatedRegion]:
    regions = sample.saturated_regions(hw) if sample.label else []
    if side is None:
        return regions
    # What is enough is a number of pixels or a share: the pixels shrink with the picture.
    scale = side * side / (hw[0] * hw[1])
    return [
        dataclasses.replace(
            one,
            mask=_mask_at_side(one.mask, side),
            saturation=one.saturation if one.relative else one.saturation * scale,
        )
        for one in regions
    ]


def failed(job: Job, reason: str) -> list[Outcome]:
    """What a job gives that did not come to its end."""
    told: dict[str, Any] = {
        "status": "failed",
        "reason": reason,
        "versions": _versions(),
        "machine": _machine(),
        "date": _now(),
    }
    return [Outcome(Record(**_identity(job, category), **told)) for category in job.categories]


def _identity(job: Job, category: str) -> dict[str, Any]:
    return {
        "key": job.key(category),
        "method": job.method.name,
        "baseline": job.method.baseline,
        "options": dict(job.method.options),
        "dataset": job.dataset.name,
        "layout": job.dataset.layout,
        "category": category,
        "setting": job.setting_name,
        "shots": job.shots,
        "draw": job.draw,
        "seed": job.seed,
        "protocol": job.protocol.identity(),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, str]:
    from fewshot_ad.doctor import processor_name

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor_name(),
        "cpus": str(cpus),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def forget_peak() -> None:
    """Start the peak memory of this process anew, where the system can: a new process inherits its parent's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_megabytes() -> float | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / (1e6 if platform.system() == "Darwin" else 1e3))


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
