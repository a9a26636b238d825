"""One job: fit, predict one image at a time, measure."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from fewshot_ad import metrics
from fewshot_ad.arrays import BoolArray, Float32Array, Progress, Uint8Array
from fewshot_ad.benchmark.machine import machine, now, peak_megabytes, versions
from fewshot_ad.benchmark.material import Images, Material, material, sample_name, source_samples, with_points
from fewshot_ad.benchmark.overlays import Overlays
from fewshot_ad.benchmark.plan import Job
from fewshot_ad.benchmark.record import Record
from fewshot_ad.benchmark.support import list_hash
from fewshot_ad.datasets.sample import Sample
from fewshot_ad.errors import BenchmarkError, ImageError
from fewshot_ad.images import read_image
from fewshot_ad.metrics import PixelMetrics, SaturatedRegion
from fewshot_ad.printable import printable
from fewshot_ad.zoo import Labeled, Method, cards, create, differences, options
from fewshot_ad.zoo.fit_memory import require_fit_memory


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one job for one category.

    Attributes:
        record: For the record file.
        pictures: JPEG files by path relative to that file.
    """

    record: Record
    pictures: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def run_single_fit(job: Job, progress: Progress | None = None) -> list[Outcome]:
    """Fit the method once on all categories of a job, and test it on each; one outcome per category."""
    parts = material(job)
    method = create_method(job)
    fitted_on = [job.fitted_on] if job.fitted_on else list(parts)
    support = [sample for category in fitted_on for sample in parts[category].support]
    names = [sample_name(sample, job.dataset.root) for sample in support]
    if job.source is not None:
        source = source_samples(job.source)
        support = [*source, *support]
        # Each below its own dataset's folder, which may lie inside the other's.
        names = [*(sample_name(sample, job.source.root) for sample in source), *names]
    start = time.perf_counter()
    labeled = [sample for category in fitted_on for sample in parts[category].labeled]
    fit_method(job, method, support, labeled, progress)
    fit_s = time.perf_counter() - start
    return [measure(job, category, method, part, support, names, fit_s, progress) for category, part in parts.items()]


def create_method(job: Job) -> Method:
    """The method of a job, not fitted yet.

    A method with an option `class_name` that the plan leaves out gets the name of the job's category; where one model
    serves several categories there is no single name, and the option keeps its default.
    """
    settings = dict(job.method.options)
    if len(job.categories) == 1 and "class_name" in options(job.method.baseline):
        settings.setdefault("class_name", job.categories[0].replace("_", " "))
    if device_of(job) != "cpu":
        settings["device"] = device_of(job)
    # Whether anything may be fetched was asked before the run, see `run_plan`.
    return create(job.method.baseline, seed=job.seed, allow_download=True, **settings)


def device_of(job: Job) -> str:
    """Where the method of a job computes: as its options say, or as the run does."""
    # This package's own method knows one GPU.
    own = "device" in options(job.method.baseline)
    return str(job.method.options.get("device", job.device.partition(":")[0] if own else job.device))


def fit_method(
    job: Job,
    method: Method,
    support: Sequence[Sample],
    labeled: Sequence[Sample] = (),
    progress: Progress | None = None,
) -> None:
    """Fit the method of a job on samples."""
    where: dict[str, Any] = {"device": device_of(job)} if device_of(job) != "cpu" else {}
    require_fit_memory(job.method.baseline, {**job.method.options, **where}, len(support))
    defects = []
    for sample in labeled:
        image = read_image(sample.path)
        # Where nobody marked the place, it may be anywhere.
        mask = sample.mask(image.shape[:2]) if sample.has_mask else np.ones(image.shape[:2], bool)
        defects.append(Labeled(image, mask, sample.defect_type))
    method.fit(Images(support, _needs_points(job)), defects, progress)


def _needs_points(job: Job) -> bool:
    return cards()[job.method.baseline].needs_points


def measure(
    job: Job,
    category: str,
    method: Method,
    part: Material,
    support: Sequence[Sample],
    names: Sequence[str],
    fit_s: float,
    progress: Progress | None = None,
) -> Outcome:
    """Predict the test images of one category and put everything on record.

    Args:
        job: What the plan asks for.
        category: Product to test on.
        method: Fitted.
        part: Images of this category.
        support: Images the method was fitted on, of all categories.
        names: Names of the support images.
        fit_s: Seconds the fit took.
        progress: Called as `progress("inspecting CATEGORY", done, total)`.

    Raises:
        BenchmarkError: A score is not finite.
    """
    tally = _Tally(job, any(sample.saturations for sample in part.test))
    for done, sample in enumerate(part.test, start=1):
        tally.predict(method, sample)
        if progress is not None:
            progress(f"inspecting {category}", done, len(part.test))
    if not np.isfinite(tally.scores).all():
        raise BenchmarkError(f"expected finite scores, got {np.sum(~np.isfinite(tally.scores))} that are not.")
    figures = image_figures(tally.labels, tally.scores, tally.decisions)
    threshold = None
    if tally.masks and any(s.label and s.has_mask for s in part.test):
        pixel_figures, threshold = tally.pixel_figures()
        figures |= pixel_figures
    # Where one model serves many categories, each record names its own images alone; hash and count are of all.
    own = [name for name, sample in zip(names, support, strict=True) if sample.category == category]
    pictures = tally.overlays.pictures(job.key(category), threshold)
    record = Record(
        **_identity(job, category),
        status="done",
        figures={name: float(value) for name, value in figures.items() if np.isfinite(value)},
        intervals=_intervals(tally.labels, tally.scores, tally.decisions, job.protocol.bootstrap, job.seed),
        fit_s=fit_s,
        ms=float(np.median(tally.times_ms)),
        ms_p95=float(np.percentile(tally.times_ms, 95)),
        ms_mae=float(np.abs(np.subtract(tally.times_ms, np.median(tally.times_ms))).mean()),
        model_mb=method.model_bytes() / 1e6,
        memory_mb=peak_megabytes(),
        counts={
            "support": len(support),
            **({"labeled": len(part.labeled)} if part.labeled else {}),
            "test_good": tally.labels.count(0),
            "test_defective": tally.labels.count(1),
            "masks": tally.masks,
            "unreadable": tally.unreadable,
            **part.copy,
        },
        support=tuple(map(printable, own if len(job.categories) > 1 and not job.fitted_on else names)),
        support_sha256=list_hash(names),
        labeled=tuple(printable(sample_name(sample, job.dataset.root)) for sample in part.labeled),
        overlays=tuple(pictures),
        versions=versions(),
        machine=machine(device_of(job)),
        date=now(),
    )
    return Outcome(record, pictures)


class _Tally:
    """The predictions of one category's test images, as far as figures and pictures need them.

    Args:
        job: What the plan asks for.
        has_saturations: Whether the dataset says how much of each defect is enough.
    """

    def __init__(self, job: Job, has_saturations: bool) -> None:
        self._side = job.protocol.pixel_side
        self._points = _needs_points(job)
        self._pixels = PixelMetrics()
        self._saturated = PixelMetrics() if has_saturations else None
        self.overlays = Overlays(job.protocol.overlays)
        self.labels: list[int] = []
        self.scores: list[float] = []
        self.times_ms: list[float] = []
        self.masks = 0
        self.unreadable = 0
        self._rejected: list[bool] = []

    @property
    def decisions(self) -> list[bool] | None:
        """The method's decisions; None unless it decided on every image."""
        return self._rejected if len(self._rejected) == len(self.scores) else None

    def predict(self, method: Method, sample: Sample) -> None:
        """Predict one image; an unreadable one is only counted."""
        try:
            image = read_image(sample.path)
        except ImageError:
            self.unreadable += 1
            return
        shown: Any = with_points(image, sample) if self._points else image
        start = time.perf_counter()
        prediction = method.predict([shown])
        self.times_ms.append((time.perf_counter() - start) * 1e3)
        self.labels.append(sample.label)
        self.scores.append(float(prediction.scores[0]))
        if prediction.rejected is not None:
            self._rejected.append(bool(prediction.rejected[0]))
        if prediction.maps is not None:
            self._add_map(sample, image, prediction.maps[0])

    def _add_map(self, sample: Sample, image: Uint8Array, score_map: Float32Array) -> None:
        mask = sample.mask(image.shape[:2]) if sample.has_mask else None
        if mask is not None:
            self.masks += 1
            heat, small = _at_side(score_map, mask, self._side)
            self._pixels.add(heat, small)
            if self._saturated is not None:
                self._saturated.add_saturated(heat, _regions_at_side(sample, image.shape[:2], self._side))
        self.overlays.offer(image, mask, score_map, sample.label)

    def pixel_figures(self) -> tuple[dict[str, float], float | None]:
        """The figures of merit of score maps, and the threshold of the highest pixel F1, for pictures."""
        result = self._pixels.result()
        figures = {
            "pixel_auroc": result.auroc,
            "pixel_aupr": result.aupr,
            "pixel_f1_max": result.f1_max,
            "pixel_iou_max": result.iou_max,
            "au_pro": result.au_pro,
            "au_pro_05": result.au_pro_05,
        }
        if self._saturated is not None:
            saturated = self._saturated.result()
            figures |= {"au_spro": saturated.au_pro, "au_spro_05": saturated.au_pro_05}
        return figures, result.threshold if np.isfinite(result.threshold) else None


def image_figures(labels: Sequence[int], scores: Sequence[float], rejected: Sequence[bool] | None) -> dict[str, float]:
    """The figures of merit of whole images."""
    figures = {
        "image_auroc": metrics.auroc(labels, scores),
        "image_aupr": metrics.aupr(labels, scores),
        "image_f1_max": metrics.f1_max(labels, scores)[0],
        "image_mcc_max": metrics.mcc_max(labels, scores),
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
            "mcc": decided.mcc,
        }
    return figures


def _intervals(
    labels: Sequence[int], scores: Sequence[float], rejected: Sequence[bool] | None, repeats: int, seed: int
) -> dict[str, metrics.Interval]:
    """95% intervals of the figures of whole images; those of maps would need all maps in memory."""
    if not repeats or not 0 < sum(labels) < len(labels):
        return {}
    intervals = {
        "image_auroc": metrics.bootstrap(metrics.auroc, labels, scores, repeats, seed=seed),
        "image_aupr": metrics.bootstrap(metrics.aupr, labels, scores, repeats, seed=seed),
        "image_f1_max": metrics.bootstrap(metrics.f1_max, labels, scores, repeats, seed=seed),
        "image_mcc_max": metrics.bootstrap(metrics.mcc_max, labels, scores, repeats, seed=seed),
    }
    if rejected is not None:
        intervals |= {
            "false_reject_rate": metrics.bootstrap(metrics.false_reject_rate, labels, rejected, repeats, seed=seed),
            "escape_rate": metrics.bootstrap(metrics.escape_rate, labels, rejected, repeats, seed=seed),
        }
    return intervals


def _at_side(heat: Float32Array, mask: BoolArray, side: int | None) -> tuple[Float32Array, BoolArray]:
    if side is None:
        return heat, mask
    return cv2.resize(heat, (side, side), interpolation=cv2.INTER_AREA), _mask_at_side(mask, side)


def _mask_at_side(mask: BoolArray, side: int) -> BoolArray:
    small = cv2.resize(mask.astype(np.uint8) * 255, (side, side), interpolation=cv2.INTER_AREA)
    defective = small > 127
    if mask.any() and not defective.any():
        # Thinner than one pixel: finding it must not count as a false alarm.
        defective = small > 0
    return np.asarray(defective)


def _regions_at_side(sample: Sample, hw: tuple[int, int], side: int | None) -> list[SaturatedRegion]:
    regions = sample.saturated_regions(hw) if sample.label else []
    if side is None:
        return regions
    # What is enough is a number of pixels or a share: a number of pixels shrinks with the image.
    scale = side * side / (hw[0] * hw[1])
    return [
        dataclasses.replace(
            one,
            mask=_mask_at_side(one.mask, side),
            saturation=one.saturation if one.relative else one.saturation * scale,
        )
        for one in regions
    ]


def failure(job: Job, reason: str) -> list[Outcome]:
    """The outcomes of a job that did not come to its end, one per category."""
    cause: dict[str, Any] = {
        "status": "failed",
        "reason": printable(reason),
        "versions": versions(),
        "machine": machine(device_of(job)),
        "date": now(),
    }
    return [Outcome(Record(**_identity(job, category), **cause)) for category in job.categories]


def _identity(job: Job, category: str) -> dict[str, Any]:
    return {
        "key": job.key(category),
        "method": printable(job.method.name),
        "baseline": job.method.baseline,
        "options": dict(job.method.options),
        "dataset": printable(job.dataset.name),
        "layout": job.dataset.layout,
        "category": printable(category),
        "setting": printable(job.setting_name),
        "shots": job.shots,
        "draw": job.draw,
        "seed": job.seed,
        "protocol": job.protocol.identity(),
        "differs": differences(job.method.baseline, job.method.options),
    }
