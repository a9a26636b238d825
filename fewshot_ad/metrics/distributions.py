"""Tails and quantiles of the normal and of Student's t distribution."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float64Array

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def normal_above(standard: Float64Array) -> Float64Array:
    """Probability that a standard normal variable is above each value."""
    return np.asarray(0.5 * _erfc(standard / math.sqrt(2)), np.float64)


def student_t_above(values: npt.ArrayLike, degrees_of_freedom: float) -> Float64Array:
    """Probability that a variable with Student's t distribution is above each value."""
    angle, cumulative = _student_t_table(degrees_of_freedom)
    at = np.arctan(np.asarray(values, np.float64) / math.sqrt(degrees_of_freedom))
    return np.asarray(1 - np.interp(at, angle, cumulative), np.float64)


def student_t_quantile(probability: float, degrees_of_freedom: float) -> float:
    """Quantile of Student's t distribution, right to about 1e-6 for probabilities in 0.001..0.999."""
    angle, cumulative = _student_t_table(degrees_of_freedom)
    return math.sqrt(degrees_of_freedom) * math.tan(float(np.interp(probability, cumulative, angle)))


@functools.lru_cache(maxsize=16)
def _student_t_table(degrees_of_freedom: float) -> tuple[Float64Array, Float64Array]:
    """The distribution's cumulative probability over u, where t = sqrt(v) tan(u).

    The density becomes cos(u)^(v - 1) on (-pi/2, pi/2), which is integrated numerically.
    """
    angle = np.linspace(-np.pi / 2, np.pi / 2, 100_001)
    density = np.cos(angle).clip(0) ** (degrees_of_freedom - 1)
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return angle, cumulative / cumulative[-1]


def population_stability_index(expected: npt.ArrayLike, actual: npt.ArrayLike, bins: int = 5) -> float:
    """How far a sample is from another, by their shares in bins with equal shares of the first.

    The sum over the bins of (a - e) log(a / e). Of two samples of n values of one distribution it is about
    2 (bins - 1) / n. Below 0.1 is commonly called stable, above 0.25 changed.

    Args:
        expected: (n,) values of the sample that the bins are of.
        actual: (m,) values of the other.
        bins: Number of bins.

    Source: Siddiqi 2006, Credit Risk Scorecards, chapter 8.
    """
    first, other = np.asarray(expected, np.float64).ravel(), np.asarray(actual, np.float64).ravel()
    edges = np.quantile(first, np.linspace(0, 1, bins + 1)[1:-1])
    shares = [np.bincount(np.searchsorted(edges, one, "right"), minlength=bins) for one in (first, other)]
    # Half a value more in each bin, so that an empty one costs no infinity.
    e, a = ((counts + 0.5) / (counts.sum() + 0.5 * bins) for counts in shares)
    return float(((a - e) * np.log(a / e)).sum())
