"""The best threshold for images whose truth is known, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fewshot_ad.arguments import number
from fewshot_ad.arrays import Float64Array
from fewshot_ad.metrics.ranking import Interval, percentile_interval
from fewshot_ad.metrics.rates import Rate, conformal_threshold, finite_scores

# Scores are compared on a log scale, where 0 has no place.
_SMALLEST = 1e-12
# Beyond the outermost scores there is no gap to be in the middle of: as far as rounding could move a score.
_MARGIN = 1e-6
_FOLDS = 50
REPEATS = 1000


@dataclass(frozen=True)
class LabeledThreshold:
    """A threshold that was chosen from good and bad images.

    Attributes:
        threshold: Scores above it are anomalous.
        interval: What the middle 95% of 1,000 bootstrap draws (seed 0) give as the threshold. It is too narrow for few
            images: with up to 20 of a kind it holds the best threshold in 65% to 90% of the cases rather than in 95%.
        false_rejects: The good images it rejects, of those it was chosen from: flattering, the more the fewer they are.
        escapes: The bad images it passes, of those it was chosen from.
        held_out_false_rejects: The good images that are rejected if each is judged by a threshold that was chosen
            without it (leave-one-out; in 50 parts, for more than 50 images): close to what new images show. None where
            there is a single image of a kind.
        held_out_escapes: The bad images that are passed in the same way.
    """

    threshold: float
    interval: Interval
    false_rejects: Rate
    escapes: Rate
    held_out_false_rejects: Rate | None
    held_out_escapes: Rate | None


def threshold_of_labeled(
    good_scores: Sequence[float],
    bad_scores: Sequence[float],
    cost_ratio: float = 1.0,
    max_false_reject: float | None = None,
) -> LabeledThreshold:
    """The threshold of lowest cost: false reject rate + cost_ratio * escape rate.

    Rates are weighed, not counts, so that it does not matter how many images of each kind happen to be there; a ratio
    of 1 gives the highest balanced accuracy. All thresholds between two neighboring scores cost the same; the middle of
    that gap on a log scale is taken, and of several gaps of the same cost the widest.

    Args:
        good_scores: (n,) positive scores of good images that were not enrolled.
        bad_scores: (m,) positive scores of bad images.
        cost_ratio: How many times as much as to reject all good parts it costs to pass all bad ones; above 0.
        max_false_reject: The threshold is no lower than `conformal_threshold` for this rate, or than the highest good
            score where there are too few good images for that; None for no such limit.

    Raises:
        ArgumentError: There is no good or no bad score, one is not finite, or the ratio or the rate is out of range.

    Source: Youden 1950, on the index that a ratio of 1 maximizes; Efron & Tibshirani 1993, chapters 13 and 17.
    """
    good, bad = finite_scores(good_scores, "good_scores"), finite_scores(bad_scores, "bad_scores")
    weights = _Weights(number(cost_ratio, "cost_ratio", 0, low_counts=False), max_false_reject)
    threshold = _lowest_cost(good, bad, weights)
    held_out_false_rejects, held_out_escapes = _held_out(good, bad, weights)
    return LabeledThreshold(
        threshold,
        _bootstrap_interval(good, bad, weights),
        Rate(int((good > threshold).sum()), len(good)),
        Rate(int((bad <= threshold).sum()), len(bad)),
        held_out_false_rejects,
        held_out_escapes,
    )


class _Weights(NamedTuple):
    """What a threshold is chosen by."""

    cost_ratio: float
    max_false_reject: float | None

    def lowest(self, good: Float64Array) -> float:
        """The lowest threshold that the limit on false rejects allows."""
        if self.max_false_reject is None:
            return 0.0
        limit = conformal_threshold(good.tolist(), self.max_false_reject)
        return max(_SMALLEST, float(good.max()) if limit is None else limit)


def _lowest_cost(good: Float64Array, bad: Float64Array, weights: _Weights) -> float:
    values = np.unique(np.maximum(np.concatenate([good, bad]), _SMALLEST))
    false_rejects = 1 - np.searchsorted(np.sort(good), values, side="right") / len(good)
    escapes = np.searchsorted(np.sort(bad), values, side="right") / len(bad)
    # The first gap is the one below all scores, where every image is rejected; each other begins at a score.
    costs = np.concatenate([[1.0], false_rejects + weights.cost_ratio * escapes])
    edges = np.concatenate([[values[0] * (1 - _MARGIN)], values, [values[-1] * (1 + _MARGIN)]])
    costs[edges[:-1] < weights.lowest(good)] = np.inf
    widths = np.diff(np.log(edges))
    cheapest = np.flatnonzero(costs <= costs.min() + 1e-12)
    best = int(cheapest[np.argmax(widths[cheapest])])
    return float(np.sqrt(edges[best]) * np.sqrt(edges[best + 1]))


def _bootstrap_interval(good: Float64Array, bad: Float64Array, weights: _Weights) -> Interval:
    rng = np.random.default_rng(0)
    draws = [
        _lowest_cost(rng.choice(good, len(good)), rng.choice(bad, len(bad)), weights)  # with replacement
        for _ in range(REPEATS)
    ]
    return percentile_interval(np.array(draws), 0.95)


def _held_out(good: Float64Array, bad: Float64Array, weights: _Weights) -> tuple[Rate | None, Rate | None]:
    """The mistakes of thresholds that were chosen without the images they judge."""
    if min(len(good), len(bad)) < 2:
        return None, None
    false_rejects = escapes = 0
    folds = min(_FOLDS, max(len(good), len(bad)))
    for fold in range(folds):
        left_out = [np.arange(len(scores)) % folds == fold for scores in (good, bad)]
        threshold = _lowest_cost(good[~left_out[0]], bad[~left_out[1]], weights)
        false_rejects += int((good[left_out[0]] > threshold).sum())
        escapes += int((bad[left_out[1]] <= threshold).sum())
    return Rate(false_rejects, len(good)), Rate(escapes, len(bad))
