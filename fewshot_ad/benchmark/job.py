"""One job: fit, predict one photograph at a time, measure."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewshot_ad import metrics
from fewshot_ad.benchmark.overlays import Overlays
from fewshot_ad.benchmark.plan import DatasetPlan, Job
from fewshot_ad.benchmark.record import Record
from fewshot_ad.benchmark.support import by_hash, chosen, list_hash, read_lists, shipped_lists
from fewshot_ad.datasets import Dataset, open_dataset
from fewshot_ad.datasets.sample import Sample
from fewshot_ad.errors import BenchmarkError, ImageError
from fewshot_ad.images import Float32Array, Uint8Array, read_image
from fewshot_ad.pixel_metrics import PixelMetrics
from fewshot_ad.zoo import Labelled, Method, create
from fewshot_ad.zoo import cards as zoo_cards

LIBRARIES = ("fewshot-ad", "numpy", "opencv-python-headless", "openvino", "torch", "timm", "anomalib", "ultralytics")


class Photographs(Sequence[Uint8Array]):
    """Photographs read from disk when they are asked for, (H, W, 3) uint8 RGB each."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Photographs(self._samples[index])
        return read_image(self._samples[index].path)


@dataclasses.dataclass(frozen=True)
class Material:
    """What a category has for a job.

    Attributes:
        support: Photographs to fit on.
        test: Photographs to predict.
        labelled: Defective ones for supervised methods, which are none of the test.
    """

    support: tuple[Sample, ...]
    test: tuple[Sample, ...]
    labelled: tuple[Sample, ...] = ()


def material(job: Job, category: str) -> Material:
    """The support and test photographs of a category, fixed by their names.

    Supervised methods get half of the defective photographs, by hash, and are tested on the other half; all other
    methods are tested on all, so the two kinds do not compare on the same photographs.

    Raises:
        BenchmarkError: There are not enough photographs.
    """
    dataset = open_dataset(job.dataset.layout, job.dataset.root)
    lists = _lists(job.dataset)
    good = _by_name(dataset, job.dataset, category)
    if job.shots == "full":
        support = list(good.values())
    else:
        support = [good[name] for name in chosen(list(good), category, job.shots, job.draw, lists)]
    test = list(dataset.samples(category, "test"))
    healthy = [s for s in test if s.label == 0]
    defective = by_hash([s for s in test if s.label == 1], _name(job.dataset), f"{category}/test")
    labelled: list[Sample] = []
    if zoo_cards()[job.method.baseline].supervision == "labelled defects":
        with_masks = [s for s in defective if s.has_mask]
        labelled = with_masks[::2]
        defective = [s for s in defective if s not in set(labelled)]
    if job.noise > 0:
        count = max(1, round(job.noise * len(support)))
        drawn = by_hash(defective, _name(job.dataset), f"{category}/noise/{job.draw}")[:count]
        if len(drawn) < count:
            raise BenchmarkError(f"{category}: expected {count} defective photographs for the support set.")
        support[-count:] = drawn
        defective = [s for s in defective if s not in set(drawn)]
    limit = job.protocol.test_limit
    healthy = by_hash(healthy, _name(job.dataset), f"{category}/test")[:limit]
    return Material(tuple(support), (*healthy, *defective[:limit]), tuple(labelled))


def good_names(layout: str, root: Path) -> dict[str, list[str]]:
    """The names of all good training photographs, by category, as support lists have them."""
    dataset = open_dataset(layout, root)
    plan = DatasetPlan(layout, layout, root)
    return {category: list(_by_name(dataset, plan, category)) for category in dataset.categories}


def _lists(dataset: DatasetPlan) -> Any:
    return shipped_lists(dataset.layout) if dataset.support is None else read_lists(dataset.support)


def _by_name(dataset: Dataset, plan: DatasetPlan, category: str) -> dict[str, Sample]:
    name = _name(plan)
    good = {name(s): s for s in dataset.samples(category, "train") if s.label == 0}
    # Most datasets have all good photographs in one folder; lists then have bare file names.
    bare = {s.path.name: s for s in good.values()}
    return dict(sorted((bare if len(bare) == len(good) else good).items()))


def _name(plan: DatasetPlan) -> Any:
    def relative(sample: Sample) -> str:
        return sample.path.relative_to(plan.root).as_posix()

    return relative


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
    parts = {category: material(job, category) for category in job.categories}
    method = create(job.method.baseline, seed=job.seed, **job.method.options)
    support = [sample for part in parts.values() for sample in part.support]
    if job.source is not None:
        support = [*_source(job.source), *support]
    start = time.perf_counter()
    fit(method, support, [sample for part in parts.values() for sample in part.labelled])
    fit_s = time.perf_counter() - start
    return [measured(job, category, method, part, support, fit_s) for category, part in parts.items()]


def _source(plan: DatasetPlan) -> list[Sample]:
    dataset = open_dataset(plan.layout, plan.root)
    categories = plan.categories or tuple(dataset.categories)
    return [sample for category in categories for sample in dataset.samples(category, "train") if sample.label == 0]


def fit(method: Method, support: Sequence[Sample], labelled: Sequence[Sample] = ()) -> None:
    """Fit a method on samples."""
    defects = []
    for sample in labelled:
        photograph = read_image(sample.path)
        defects.append(Labelled(photograph, sample.mask(photograph.shape[:2]), sample.defect_type))
    method.fit(Photographs(support), defects)


def measured(
    job: Job, category: str, method: Method, part: Material, support: Sequence[Sample], fit_s: float
) -> Outcome:
    """Predict a category's test photographs and put everything on record."""
    pixels = PixelMetrics()
    overlays = Overlays(job.protocol.overlays)
    labels: list[int] = []
    scores: list[float] = []
    rejected: list[bool] = []
    times: list[float] = []
    masks = unreadable = 0
    for sample in part.test:
        try:
            photograph = read_image(sample.path)
        except ImageError:
            unreadable += 1
            continue
        start = time.perf_counter()
        said = method.predict([photograph])
        times.append((time.perf_counter() - start) * 1e3)
        labels.append(sample.label)
        scores.append(float(said.scores[0]))
        if said.rejected is not None:
            rejected.append(bool(said.rejected[0]))
        if said.maps is None:
            continue
        mask = sample.mask(photograph.shape[:2]) if sample.has_mask else None
        if mask is not None:
            masks += 1
            pixels.add(*_at_side(said.maps[0], mask, job.protocol.pixel_side))
        overlays.offer(photograph, mask, said.maps[0], sample.label)
    if not np.isfinite(scores).all():
        raise BenchmarkError(f"expected finite scores, got {np.sum(~np.isfinite(scores))} that are not.")
    figures = image_figures(labels, scores, rejected if len(rejected) == len(scores) else None)
    if masks and any(s.label and s.has_mask for s in part.test):
        figures |= _pixel_figures(pixels)
    intervals = {}
    if job.protocol.bootstrap and 0 < sum(labels) < len(labels):
        low, high = metrics.bootstrap(metrics.auroc, labels, scores, repeats=job.protocol.bootstrap, seed=job.seed)
        intervals["image_auroc"] = (low, high)
    names = [sample.path.relative_to(_root(job, sample)).as_posix() for sample in support]
    pictures = overlays.pictures(job.key(category))
    record = Record(
        **_identity(job, category),
        status="done",
        figures={name: float(value) for name, value in figures.items() if np.isfinite(value)},
        intervals=intervals,
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
        },
        support=tuple(names),
        support_sha256=list_hash(names),
        overlays=tuple(pictures),
        versions=_versions(),
        machine=_machine(),
        date=_now(),
    )
    return Outcome(record, pictures)


def image_figures(labels: Sequence[int], scores: Sequence[float], rejected: Sequence[bool] | None) -> dict[str, float]:
    """The figures of merit of whole photographs."""
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
            "false_reject_rate": decided.false_reject_rate,
            "escape_rate": decided.escape_rate,
            "balanced_accuracy": decided.balanced_accuracy,
        }
    return figures


def _pixel_figures(pixels: PixelMetrics) -> dict[str, float]:
    result = pixels.result()
    return {
        "pixel_auroc": result.auroc,
        "pixel_aupr": result.aupr,
        "pixel_f1_max": result.f1_max,
        "au_pro": result.au_pro,
        "au_pro_05": result.au_pro_05,
    }


def _at_side(heat: Float32Array, mask: Any, side: int | None) -> tuple[Float32Array, Any]:
    if side is None:
        return heat, mask
    small = cv2.resize(mask.astype(np.uint8) * 255, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(heat, (side, side), interpolation=cv2.INTER_AREA), small > 127


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


def _root(job: Job, sample: Sample) -> Path:
    roots = [job.dataset.root, *([job.source.root] if job.source else [])]
    return next(root for root in roots if sample.path.is_relative_to(root))


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

    return {"processor": processor_name(), "system": platform.system(), "architecture": platform.machine()}


def _peak_megabytes() -> float | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / (1e6 if platform.system() == "Darwin" else 1e3))


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
