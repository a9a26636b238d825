"""Figures of merit of scores and decisions, and how sure they are; of maps, see `region_overlap`, `pixel_metrics`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import BoolArray, Float64Array
from fewshot_ad.errors import BenchmarkError

Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Levels:
    """How many have each distinct score, highest score first. All ranking figures follow from this alone.

    Attributes:
        positive: (..., n) defective ones at each score.
        negative: (..., n) good ones at each score.
    """

    positive: npt.NDArray[Any]
    negative: npt.NDArray[Any]

    def auroc(self) -> Float64Array:
        """(...) area under the ROC curve; NaN if one of the two classes is absent."""
        hits = np.cumsum(self.positive, axis=-1, dtype=np.float64)
        ordered = (self.negative * (hits - self.positive / 2)).sum(axis=-1)
        return share(ordered, hits[..., -1] * self.negative.sum(axis=-1, dtype=np.float64))

    def aupr(self) -> Float64Array:
        """(...) average precision; NaN without a defective one."""
        hits = np.cumsum(self.positive, axis=-1, dtype=np.float64)
        rejected = hits + np.cumsum(self.negative, axis=-1, dtype=np.float64)
        return share((self.positive * hits / np.maximum(rejected, 1)).sum(axis=-1), hits[..., -1])

    def f1(self) -> Float64Array:
        """(..., n) F1 of rejecting each score and all above it; NaN without a defective one."""
        hits = np.cumsum(self.positive, axis=-1, dtype=np.float64)
        total = hits[..., -1:]
        return share(2 * hits, np.cumsum(self.negative, axis=-1) + hits + total) * np.where(total > 0, 1, np.nan)


def share(part: npt.ArrayLike, whole: npt.ArrayLike) -> Float64Array:
    """One over the other; NaN of nothing out of nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(part, whole, dtype=np.float64)


def _levels(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Levels, npt.NDArray[Any]]:
    positive, values = _truth(labels), np.asarray(scores).ravel()
    if len(positive) != len(values) or not len(values) or np.isnan(values).any():
        raise BenchmarkError(
            f"expected as many scores as labels, one at least and none NaN; got {len(values)} scores "
            f"({int(np.isnan(values).sum())} NaN) and {len(positive)} labels. Leave out what could not be scored."
        )
    distinct, inverse = np.unique(values, return_inverse=True)
    counts = [np.bincount(inverse[kind].ravel(), minlength=len(distinct))[::-1] for kind in (positive, ~positive)]
    return Levels(*counts), distinct[::-1]


def _truth(labels: npt.ArrayLike) -> BoolArray:
    return np.asarray(labels).astype(bool).ravel()


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: the probability that a defective one scores above a good one, ties counting half.

    Args:
        labels: (n,) truthy = defective.
        scores: (n,) higher = worse.

    Returns:
        0..1; NaN if one of the two classes is absent.

    Source: Mann & Whitney 1947; Hanley & McNeil 1982.
    """
    return float(_levels(labels, scores)[0].auroc())


def aupr(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the precision-recall curve, as average precision: without interpolation between scores.

    Args:
        labels: (n,) truthy = defective.
        scores: (n,) higher = worse.

    Returns:
        0..1, the share of defective ones being what chance gives; NaN without a defective one.

    Source: Davis & Goadrich 2006, section 4, on why interpolating flatters.
    """
    return float(_levels(labels, scores)[0].aupr())


class F1Max(NamedTuple):
    """The highest F1 of any threshold.

    Attributes:
        f1: 0..1, NaN without a defective one.
        threshold: Scores from it up are rejected; the highest one where several give that F1.
    """

    f1: float
    threshold: float


def f1_max(labels: npt.ArrayLike, scores: npt.ArrayLike) -> F1Max:
    """F1 at the threshold that suits these labels best: an upper bound, not what a shipped threshold reaches.

    Args:
        labels: (n,) truthy = defective.
        scores: (n,) higher = worse.
    """
    levels, values = _levels(labels, scores)
    f1 = levels.f1()
    best = int(np.argmax(f1))
    return F1Max(float(f1[best]), float(values[best]) if not np.isnan(f1[best]) else float("nan"))


@dataclass(frozen=True)
class AtThreshold:
    """What a threshold does on labeled images; all in 0..1, NaN where undefined.

    Attributes:
        precision: Share of the rejected that are defective.
        recall: Share of the defective that are rejected.
        f1: Harmonic mean of the two.
        false_reject_rate: Share of the good that are rejected.
        escape_rate: Share of the defective that are passed.
        balanced_accuracy: Mean of the shares of defective and of good ones that are told rightly.
    """

    precision: float
    recall: float
    f1: float
    false_reject_rate: float
    escape_rate: float
    balanced_accuracy: float


def at_threshold(labels: npt.ArrayLike, rejected: npt.ArrayLike) -> AtThreshold:
    """Count decisions against the truth.

    Args:
        labels: (n,) truthy = defective.
        rejected: (n,) truthy = said to be anomalous.

    Raises:
        BenchmarkError: There are not as many decisions as labels.
    """
    truth, said = _truth(labels), _truth(rejected)
    _same_length(truth, said)
    hits, false_rejects, escapes = int((truth & said).sum()), int((~truth & said).sum()), int((truth & ~said).sum())
    rejects, good = hits + false_rejects, int((~truth).sum())
    precision, f1, recall, false_reject_rate, escape_rate = share(
        [hits, 2 * hits, hits, false_rejects, escapes],
        [rejects, rejects + hits + escapes, hits + escapes, good, hits + escapes],
    ).tolist()
    balanced_accuracy = (recall + 1 - false_reject_rate) / 2
    return AtThreshold(precision, recall, f1, false_reject_rate, escape_rate, balanced_accuracy)


def false_reject_rate(labels: npt.ArrayLike, rejected: npt.ArrayLike) -> float:
    """Share of the good that are rejected; arguments and errors as of `at_threshold`."""
    return at_threshold(labels, rejected).false_reject_rate


def escape_rate(labels: npt.ArrayLike, rejected: npt.ArrayLike) -> float:
    """Share of the defective that are passed; arguments and errors as of `at_threshold`."""
    return at_threshold(labels, rejected).escape_rate


def _same_length(truth: BoolArray, values: npt.NDArray[Any]) -> None:
    if len(truth) != len(values):
        raise BenchmarkError(
            f"expected as many decisions or scores as labels, got {len(values)} and {len(truth)}. Leave out the labels "
            "of images without one."
        )


def iou(predicted: BoolArray, truth: BoolArray) -> float:
    """Intersection over union of two masks of one shape; NaN if both are empty.

    Source: Jaccard 1912.
    """
    same_shape(predicted, truth)
    return float(share((predicted & truth).sum(), (predicted | truth).sum()))


def same_shape(heat: npt.NDArray[Any], mask: npt.NDArray[Any]) -> None:
    """Raise BenchmarkError if a map and a mask do not lie on the same pixels."""
    if heat.shape != mask.shape:
        raise BenchmarkError(f"expected a mask of the map's shape {heat.shape}, got {mask.shape}. Resize one of them.")


def forgetting_by_task(accuracy: Sequence[Sequence[float]]) -> list[float]:
    """How far each task but the last has fallen since its best earlier step.

    Args:
        accuracy: `accuracy[t][j]` is the figure of task j after step t, higher = better; row t has the tasks up to t
            or all of them, NaN where one was not measured.

    Returns:
        One figure for each task but the last; below zero where later tasks helped. NaN where nothing was measured.

    Source: Chaudhry et al. 2018 (Riemannian Walk), section 3.1, forgetting measure.
    """
    if accuracy and len(accuracy[-1]) != len(accuracy):
        raise BenchmarkError(f"expected a last row of {len(accuracy)} tasks, one a step, got {len(accuracy[-1])}.")
    lost = []
    for task in range(len(accuracy) - 1):
        earlier = [row[task] for row in accuracy[:-1] if task < len(row) and not np.isnan(row[task])]
        lost.append(max(earlier) - accuracy[-1][task] if earlier else float("nan"))
    return lost


def forgetting(accuracy: Sequence[Sequence[float]]) -> float:
    """Mean of `forgetting_by_task`; NaN of a single task."""
    lost = forgetting_by_task(accuracy)
    return float(np.mean(lost)) if lost else float("nan")


# Of draws of one test set at once: how many of each kind have each value, and the values.
_AT_ONCE: dict[Any, Callable[[Levels, npt.NDArray[Any]], Float64Array]] = {
    auroc: lambda drawn, _: drawn.auroc(),
    aupr: lambda drawn, _: drawn.aupr(),
    f1_max: lambda drawn, _: np.asarray(drawn.f1().max(axis=-1)),
    false_reject_rate: lambda drawn, said: share((drawn.negative * said).sum(axis=-1), drawn.negative.sum(axis=-1)),
    escape_rate: lambda drawn, said: share((drawn.positive * ~said).sum(axis=-1), drawn.positive.sum(axis=-1)),
}


def bootstrap(
    metric: Callable[[npt.NDArray[Any], npt.NDArray[Any]], float | F1Max],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a figure, from drawing images anew with replacement, good and defective ones apart.

    A test set without an error gives an interval without a width: it says nothing of errors that it is too small for.

    Args:
        metric: Takes labels and scores. `auroc`, `aupr`, `f1_max` (of which the F1), `false_reject_rate` and
            `escape_rate` themselves are computed for all draws at once.
        labels: (n,) truthy = defective.
        scores: (n,) whatever the metric takes beside them: scores, or decisions.
        repeats: Number of draws.
        level: Share of the draws that lie inside.
        seed: Of the draws.

    Returns:
        (low, high); NaN if the metric is undefined in a draw.

    Raises:
        BenchmarkError: There are not as many scores as labels, or the level is not between 0 and 1.

    Source: Efron & Tibshirani 1993, chapter 13.
    """
    rng = np.random.default_rng(seed)
    truth, values = _truth(labels), np.asarray(scores).ravel()
    _same_length(truth, values)
    at_once = _AT_ONCE.get(metric)
    figures: list[Any] = []
    if at_once is not None:
        if metric in (false_reject_rate, escape_rate):
            values = _truth(values)
        levels, distinct = _levels(truth, values)
        # Blocks of draws, so that memory does not grow with the number of images.
        step = 1 + 2**21 // truth.size
        for start in range(0, repeats, step):
            size = min(step, repeats - start)
            block = Levels(_drawn(rng, levels.positive, size), _drawn(rng, levels.negative, size))
            figures.extend(at_once(block, distinct))
        return percentile_interval(np.array(figures), level)
    kinds = [np.flatnonzero(truth), np.flatnonzero(~truth)]
    for _ in range(repeats):
        chosen = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds if len(kind)])
        figures.append(metric(truth[chosen], values[chosen]))
    return percentile_interval(np.array(figures), level)


def _drawn(rng: np.random.Generator, counts: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """(size, n) counts of as many as there are, drawn with replacement."""
    total, kinds = int(counts.sum()), len(counts)
    if not total:
        return np.zeros((size, kinds), np.int64)
    # Drawn one by one and counted: a multinomial draw is ten times slower.
    chosen = np.repeat(np.arange(kinds), counts)[rng.integers(0, total, (size, total))]
    chosen += kinds * np.arange(size)[:, None]
    return np.bincount(chosen.ravel(), minlength=size * kinds).reshape(size, kinds)


def percentile_interval(figures: Float64Array, level: float) -> Interval:
    """(low, high) between which a share `level` of the figures lies; NaN if one of them is."""
    if not 0 < level < 1 or not len(figures):
        raise BenchmarkError(f"expected a level between 0 and 1 and one draw at least, got {level}, {len(figures)}.")
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
