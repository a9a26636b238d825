"""Rates of mistakes from a count of images, with exact intervals, and what a threshold from good scores promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fewshot_ad.arguments import number, whole_number
from fewshot_ad.errors import ArgumentError
from fewshot_ad.metrics.ranking import Interval

# Shares such as 0.29 are no exact floats: 100 * 0.29 is a little below 29.
_ROUNDING = 1e-9
# After as many halvings of 0..1 the rest is below 1e-30.
_HALVINGS = 100


@dataclass(frozen=True)
class Rate:
    """A share of images, as counted, with its exact 95% interval.

    Attributes:
        count: Number of images that were counted, 0..total.
        total: Number of images, at least 1.
    """

    count: int
    total: int

    @property
    def rate(self) -> float:
        """The share, 0..1."""
        return self.count / self.total

    @property
    def interval(self) -> Interval:
        """Its exact 95% interval, see `binomial_interval`."""
        return binomial_interval(self.count, self.total)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types: `count`, `total`, `rate` and `interval`."""
        return {"count": self.count, "total": self.total, "rate": self.rate, "interval": list(self.interval)}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.rate:.1%} ({self.count} of {self.total}; 95% interval {low:.1%} to {high:.1%})"


def binomial_interval(count: int, total: int, level: float = 0.95) -> Interval:
    """Exact interval of a rate that was counted; it holds the true rate with at least the probability `level`.

    Args:
        count: Number of images that were counted, 0..total.
        total: Number of images, at least 1; each independent of the others.
        level: Confidence level, between 0 and 1.

    Returns:
        (low, high) in 0..1. It has a width also where nothing or everything was counted: 0 of 20 gives 0 to 0.168.

    Raises:
        ArgumentError: An argument is out of range.

    Source: Clopper & Pearson 1934.
    """
    whole_number(total, "total", 1)
    whole_number(count, "count", 0, total)
    tail = (1 - _share(level, "level")) / 2
    low = 0.0 if count == 0 else beta_quantile(tail, count, total - count + 1)
    high = 1.0 if count == total else beta_quantile(1 - tail, count + 1, total - count)
    return low, high


def conformal_rank(total: int, max_false_reject: float) -> int | None:
    """Which of n good scores is the lowest threshold that keeps a promise: the ceil((n + 1)(1 - rate))-th smallest.

    Nothing is assumed of how scores are distributed, only that new good images come from where these came from.

    Args:
        total: n, the number of good images; none of them enrolled.
        max_false_reject: Highest probability that a new good image is rejected, between 0 and 1.

    Returns:
        1..n; None where n is below `needed_for(max_false_reject)`: then no score is high enough.

    Raises:
        ArgumentError: An argument is out of range.

    Source: Vovk, Gammerman & Shafer 2005; Angelopoulos & Bates 2021 (A Gentle Introduction to Conformal Prediction).
    """
    whole_number(total, "total", 1)
    above = math.floor((total + 1) * _share(max_false_reject, "max_false_reject") + _ROUNDING)
    return None if above < 1 else total + 1 - above


def conformal_threshold(scores: Sequence[float], max_false_reject: float) -> float | None:
    """The lowest threshold at which a new good image is rejected with at most a given probability.

    Args:
        scores: (n,) finite scores of good images that were not enrolled.
        max_false_reject: As for `conformal_rank`.

    Returns:
        The score of that rank, which scores must exceed to be rejected; None where there is no such rank.

    Raises:
        ArgumentError: A score is not finite, or the rate is out of range.
    """
    values = np.sort(finite_scores(scores, "scores"))
    rank = conformal_rank(len(values), max_false_reject)
    return None if rank is None else float(values[rank - 1])


def needed_for(max_false_reject: float) -> int:
    """The smallest number of good images from which `conformal_threshold` can promise a false reject rate.

    Args:
        max_false_reject: As for `conformal_rank`.

    Raises:
        ArgumentError: The rate is out of range.
    """
    return max(1, math.ceil((1 - _ROUNDING) / _share(max_false_reject, "max_false_reject")) - 1)


class FalseRejectLaw(NamedTuple):
    """What is known beforehand of the false reject rate of a threshold that is one of n good scores.

    Attributes:
        expected: Its mean over all sets of n good images, 0..1.
        upper: The rate that it exceeds for 5% of these sets only, 0..1.
    """

    expected: float
    upper: float


def false_reject_law(rank: int, total: int) -> FalseRejectLaw:
    """The law of the false reject rate of a threshold at the k-th smallest of n good scores: Beta(n + 1 - k, k).

    It is exact for continuous scores, whatever their distribution. The rate of one product is one draw from it, which
    depends on which n images happened to be taken.

    Args:
        rank: k, 1..n.
        total: n, the number of good images; none of them enrolled.

    Raises:
        ArgumentError: An argument is out of range.

    Source: Vovk 2012 (Conditional Validity of Inductive Conformal Predictors); Angelopoulos & Bates 2021, section 3.2.
    """
    whole_number(total, "total", 1)
    whole_number(rank, "rank", 1, total)
    return FalseRejectLaw((total + 1 - rank) / (total + 1), beta_quantile(0.95, total + 1 - rank, rank))


def beta_quantile(probability: float, a: int, b: int) -> float:
    """Quantile of a Beta distribution with whole-numbered parameters.

    Its distribution function at x is the probability of at least `a` hits in a + b - 1 trials that hit with probability
    x: a finite sum, which is inverted by bisection.

    Args:
        probability: Between 0 and 1.
        a: At least 1.
        b: At least 1.
    """
    trials = a + b - 1
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    hits = np.arange(a, trials + 1)
    log_choices = log_factorials[trials] - log_factorials[hits] - log_factorials[trials - hits]
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        logs = log_choices + hits * math.log(middle) + (trials - hits) * math.log1p(-middle)
        low, high = (middle, high) if np.exp(logs).sum() < probability else (low, middle)
    return (low + high) / 2


def finite_scores(scores: Sequence[float], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scores as an array (n,).

    Raises:
        ArgumentError: There is none, or one is not finite.
    """
    values = np.asarray(scores, np.float64).ravel()
    if not len(values) or not np.isfinite(values).all():
        raise ArgumentError(
            f"expected {name} as finite numbers, one at least, got {len(values)} of them, "
            f"{int((~np.isfinite(values)).sum())} not finite. Leave out what could not be scored."
        )
    return values


def _share(value: float, name: str) -> float:
    share = number(value, name, 0, 1, low_counts=False)
    if share == 1:
        raise ArgumentError(f"expected {name} above 0 and below 1, got 1.")
    return share
