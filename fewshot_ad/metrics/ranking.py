"""Metrics of image scores and of decisions, and their confidence intervals; of maps: `pixel`, `region_overlap`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import BoolArray, Float64Array
from fewshot_ad.errors import BenchmarkError

Interval: TypeAlias = tuple[float, float]


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: the probability that a defective image scores above a good one, ties counting half.

    Args:
        labels: (n,) truthy = defective.
        scores: (n,) higher = worse.

    Returns:
        0..1; NaN if one of the two classes is absent.

    Raises:
        BenchmarkError: There are not as many scores as labels, there is none, or one is NaN.

    Source: Mann & Whitney 1947; Hanley & McNeil 1982.
    """
    return float(_operating_points(labels, scores)[0].auroc())


def aupr(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the precision-recall curve, as average precision: without interpolation between scores.

    Args:
        labels: (n,) truthy = defective.
        scores: (n,) higher = worse.

    Returns:
        0..1, where random scores give the share of defective images; NaN if no image is defective.

    Raises:
        BenchmarkError: As for `auroc`.

    Source: Davis & Goadrich 2006, section 4, on why interpolation overstates the area.
    """
    return float(_operating_points(labels, scores)[0].aupr())


class F1Max(NamedTuple):
    """The highest F1 over all thresholds.

    Attributes:
        f1: 0..1; NaN if no image is defective.
        threshold: Scores at or above it are rejected; the highest one if several thresholds give that F1.
    """

    f1: float
    threshold: float


def f1_max(labels: npt.ArrayLike, scores: npt.ArrayLike) -> F1Max:
    """F1 at the best threshold for these labels: an upper bound of what a threshold set beforehand can reach.

    Args:
        labels: (n,) truthy = defective.
        scores: (n,) higher = worse.

    Raises:
        BenchmarkError: As for `auroc`.
    """
    points, thresholds = _operating_points(labels, scores)
    f1 = points.f1()
    best = int(np.argmax(f1))
    return F1Max(float(f1[best]), float(thresholds[best]) if not np.isnan(f1[best]) else float("nan"))


def mcc_max(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Matthews correlation coefficient at the best threshold for these labels: an upper bound, as `f1_max` is.

    Args:
        labels: (n,) truthy = defective.
        scores: (n,) higher = worse.

    Returns:
        0..1, where 0 is reached by rejecting all; NaN if one of the two classes is absent.

    Raises:
        BenchmarkError: As for `auroc`.

    Source: Matthews 1975.
    """
    return float(_operating_points(labels, scores)[0].mcc().max())


@dataclass(frozen=True)
class AtThreshold:
    """The rates that one threshold reaches on labeled images; all in 0..1, NaN where undefined.

    Attributes:
        precision: Share of the rejected images that are defective.
        recall: Share of the defective images that are rejected.
        f1: Harmonic mean of the two.
        false_reject_rate: Share of the good images that are rejected.
        escape_rate: Share of the defective images that are passed.
        balanced_accuracy: Mean of the share of defective images rejected and the share of good images passed.
        mcc: Matthews correlation coefficient of decisions and labels, -1..1; 0 where all decisions are the same, NaN
            where one class is absent.
    """

    precision: float
    recall: float
    f1: float
    false_reject_rate: float
    escape_rate: float
    balanced_accuracy: float
    mcc: float


def at_threshold(labels: npt.ArrayLike, rejected: npt.ArrayLike) -> AtThreshold:
    """Compare decisions with labels.

    Source: Matthews 1975 for `mcc`.

    Args:
        labels: (n,) truthy = defective.
        rejected: (n,) truthy = judged anomalous.

    Raises:
        BenchmarkError: There are not as many decisions as labels.
    """
    defective, rejects = _as_bool(labels), _as_bool(rejected)
    _require_same_length(defective, rejects)
    hits = int((defective & rejects).sum())
    false_rejects = int((~defective & rejects).sum())
    escapes = int((defective & ~rejects).sum())
    n_rejects, n_good, n_defective = hits + false_rejects, int((~defective).sum()), hits + escapes
    precision, f1, recall, false_reject_rate, escape_rate = ratio(
        [hits, 2 * hits, hits, false_rejects, escapes],
        [n_rejects, n_rejects + n_defective, n_defective, n_good, n_defective],
    ).tolist()
    balanced_accuracy = (recall + 1 - false_reject_rate) / 2
    passed = n_good - false_rejects
    spread = math.sqrt(n_rejects * (escapes + passed)) * math.sqrt(n_defective * n_good)
    if n_good == 0 or n_defective == 0:
        mcc = math.nan
    else:
        mcc = (hits * passed - false_rejects * escapes) / spread if spread else 0.0
    return AtThreshold(precision, recall, f1, false_reject_rate, escape_rate, balanced_accuracy, mcc)


def false_reject_rate(labels: npt.ArrayLike, rejected: npt.ArrayLike) -> float:
    """Share of the good images that are rejected; arguments and errors as for `at_threshold`."""
    return at_threshold(labels, rejected).false_reject_rate


def escape_rate(labels: npt.ArrayLike, rejected: npt.ArrayLike) -> float:
    """Share of the defective images that are passed; arguments and errors as for `at_threshold`."""
    return at_threshold(labels, rejected).escape_rate


def iou(predicted: BoolArray, truth: BoolArray) -> float:
    """Intersection over union of two masks of one shape; NaN if both are empty.

    Args:
        predicted: (H, W) bool, True = judged defective.
        truth: (H, W) bool, True = defect.

    Raises:
        BenchmarkError: The masks differ in shape.

    Source: Jaccard 1912.
    """
    require_same_shape(predicted, truth)
    return float(ratio((predicted & truth).sum(), (predicted | truth).sum()))


def forgetting(accuracy: Sequence[Sequence[float]]) -> float:
    """Mean of `forgetting_by_task`; NaN for a single task."""
    losses = forgetting_by_task(accuracy)
    return float(np.mean(losses)) if losses else float("nan")


def forgetting_by_task(accuracy: Sequence[Sequence[float]]) -> list[float]:
    """Accuracy lost at the end on each task, against the best accuracy any earlier step had on it.

    Args:
        accuracy: `accuracy[t][j]` is the accuracy on task j after training step t, higher = better. Row t holds the
            tasks up to t or all tasks; NaN where a task was not measured.

    Returns:
        One loss per task, without the last task. Negative where later training improved the task; NaN where the task
        was never measured before the last step.

    Raises:
        BenchmarkError: The last row does not hold one task per step.

    Source: Chaudhry et al. 2018 (Riemannian Walk), section 3.1, forgetting measure.
    """
    if accuracy and len(accuracy[-1]) != len(accuracy):
        raise BenchmarkError(f"expected a last row of {len(accuracy)} tasks, one per step, got {len(accuracy[-1])}.")
    losses = []
    for task in range(len(accuracy) - 1):
        earlier = [row[task] for row in accuracy[:-1] if task < len(row) and not np.isnan(row[task])]
        losses.append(max(earlier) - accuracy[-1][task] if earlier else float("nan"))
    return losses


def bootstrap(
    metric: Callable[[npt.NDArray[Any], npt.NDArray[Any]], float | F1Max],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a metric: images are drawn with replacement, good and defective images separately.

    A test set on which no error was made gives an interval of width 0: the bootstrap cannot tell how rare errors are
    that this test set is too small to show.

    Args:
        metric: Maps labels and scores to a number. For `auroc`, `aupr`, `f1_max` (its F1), `false_reject_rate` and
            `escape_rate` all draws are computed at once.
        labels: (n,) truthy = defective.
        scores: (n,) the metric's second argument: scores or decisions.
        repeats: Number of draws.
        level: Confidence level: share of the draws that lie inside the interval, between 0 and 1.
        seed: Of the draws.

    Returns:
        (low, high); NaN if the metric is undefined in any draw.

    Raises:
        BenchmarkError: There are not as many scores as labels, or the level is not between 0 and 1.

    Source: Efron & Tibshirani 1993, chapter 13.
    """
    rng = np.random.default_rng(seed)
    defective, values = _as_bool(labels), np.asarray(scores).ravel()
    _require_same_length(defective, values)
    all_at_once = _ALL_AT_ONCE.get(metric)
    figures: list[Any] = []
    if all_at_once is not None:
        if metric in (false_reject_rate, escape_rate):
            values = _as_bool(values)
        points, distinct = _operating_points(defective, values)
        # In blocks of draws, so that memory does not grow with the number of images.
        block_size = 1 + 2**21 // defective.size
        for start in range(0, repeats, block_size):
            size = min(block_size, repeats - start)
            draws = OperatingPoints(_redraw(rng, points.defective, size), _redraw(rng, points.good, size))
            figures.extend(all_at_once(draws, distinct))
        return percentile_interval(np.array(figures), level)
    classes = [np.flatnonzero(defective), np.flatnonzero(~defective)]
    for _ in range(repeats):
        draw = np.concatenate([rng.choice(members, len(members)) for members in classes if len(members)])
        figures.append(metric(defective[draw], values[draw]))
    return percentile_interval(np.array(figures), level)


# How to compute a metric of all draws of one test set at once: from the counts at each distinct value, and the values.
_ALL_AT_ONCE: dict[Any, Callable[[OperatingPoints, npt.NDArray[Any]], Float64Array]] = {
    auroc: lambda draws, _: draws.auroc(),
    aupr: lambda draws, _: draws.aupr(),
    f1_max: lambda draws, _: np.asarray(draws.f1().max(axis=-1)),
    mcc_max: lambda draws, _: np.asarray(draws.mcc().max(axis=-1)),
    false_reject_rate: lambda draws, rejects: ratio((draws.good * rejects).sum(axis=-1), draws.good.sum(axis=-1)),
    escape_rate: lambda draws, rejects: ratio((draws.defective * ~rejects).sum(axis=-1), draws.defective.sum(axis=-1)),
}


def _redraw(rng: np.random.Generator, counts: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Bootstrap draws of a histogram: (n,) counts -> (size, n) counts, each row with the same total."""
    total, n_values = int(counts.sum()), len(counts)
    if not total:
        return np.zeros((size, n_values), np.int64)
    # Drawn one by one and counted: a multinomial draw is ten times slower.
    draw = np.repeat(np.arange(n_values), counts)[rng.integers(0, total, (size, total))]
    draw += n_values * np.arange(size)[:, None]
    return np.bincount(draw.ravel(), minlength=size * n_values).reshape(size, n_values)


def percentile_interval(figures: Float64Array, level: float) -> Interval:
    """The interval (low, high) that holds the middle share `level` of the (n,) figures; NaN if one of them is.

    Raises:
        BenchmarkError: The level is not between 0 and 1, or there is no figure.
    """
    if not 0 < level < 1 or not len(figures):
        raise BenchmarkError(f"expected a level between 0 and 1 and one draw at least, got {level}, {len(figures)}.")
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class OperatingPoints:
    """Counts at each distinct score, highest score first; every ranking metric follows from these counts alone.

    Each distinct score is one operating point: the threshold at which it and all higher scores are rejected.

    Attributes:
        defective: (..., n) number of defective items with each score.
        good: (..., n) number of good items with each score.
    """

    defective: npt.NDArray[Any]
    good: npt.NDArray[Any]

    def auroc(self) -> Float64Array:
        """(...) area under the ROC curve; NaN if one of the two classes is absent."""
        hits = np.cumsum(self.defective, axis=-1, dtype=np.float64)
        ordered_pairs = (self.good * (hits - self.defective / 2)).sum(axis=-1)
        return ratio(ordered_pairs, hits[..., -1] * self.good.sum(axis=-1, dtype=np.float64))

    def aupr(self) -> Float64Array:
        """(...) average precision; NaN if nothing is defective."""
        hits = np.cumsum(self.defective, axis=-1, dtype=np.float64)
        rejects = hits + np.cumsum(self.good, axis=-1, dtype=np.float64)
        return ratio((self.defective * hits / np.maximum(rejects, 1)).sum(axis=-1), hits[..., -1])

    def f1(self) -> Float64Array:
        """(..., n) F1 at each operating point; NaN if nothing is defective."""
        hits = np.cumsum(self.defective, axis=-1, dtype=np.float64)
        total = hits[..., -1:]
        return ratio(2 * hits, np.cumsum(self.good, axis=-1) + hits + total) * np.where(total > 0, 1, np.nan)

    def mcc(self) -> Float64Array:
        """(..., n) Matthews correlation coefficient at each operating point; NaN if one of the classes is absent."""
        hits = np.cumsum(self.defective, axis=-1, dtype=np.float64)
        false_rejects = np.cumsum(self.good, axis=-1, dtype=np.float64)
        defective, good, rejects = hits[..., -1:], false_rejects[..., -1:], hits + false_rejects
        spread = np.sqrt(rejects * (defective + good - rejects)) * np.sqrt(defective * good)
        # Rejecting all tells nothing of the labels.
        found = ratio(hits * good - false_rejects * defective, np.where(spread > 0, spread, 1))
        return found * np.where((defective > 0) & (good > 0), 1, np.nan)


def _operating_points(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[OperatingPoints, npt.NDArray[Any]]:
    """The operating points of labeled scores and their thresholds (n,), the distinct scores from the highest down."""
    defective, values = _as_bool(labels), np.asarray(scores).ravel()
    if len(defective) != len(values) or not len(values) or np.isnan(values).any():
        raise BenchmarkError(
            f"expected as many scores as labels, one at least and none NaN; got {len(values)} scores "
            f"({int(np.isnan(values).sum())} NaN) and {len(defective)} labels. Leave out what could not be scored."
        )
    distinct, inverse = np.unique(values, return_inverse=True)
    counts = [np.bincount(inverse[kind].ravel(), minlength=len(distinct))[::-1] for kind in (defective, ~defective)]
    return OperatingPoints(*counts), distinct[::-1]


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Float64Array:
    """Ratio of a part to its whole, elementwise; NaN when both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(part, whole, dtype=np.float64)


def require_same_shape(heat: npt.NDArray[Any], mask: npt.NDArray[Any]) -> None:
    """Raise BenchmarkError if a map and a mask differ in shape."""
    if heat.shape != mask.shape:
        raise BenchmarkError(f"expected a mask of the map's shape {heat.shape}, got {mask.shape}. Resize one of them.")


def _require_same_length(labels: BoolArray, values: npt.NDArray[Any]) -> None:
    if len(labels) != len(values):
        raise BenchmarkError(
            f"expected as many decisions or scores as labels, got {len(values)} and {len(labels)}. Leave out the "
            "labels of images without one."
        )


def _as_bool(labels: npt.ArrayLike) -> BoolArray:
    return np.asarray(labels).astype(bool).ravel()
