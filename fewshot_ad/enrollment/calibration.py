"""A threshold from good images only, with what it can honestly promise."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fewshot_ad.regions import MapScale

Method: TypeAlias = Literal["leave-one-image-out", "leave-one-view-out"]


@dataclass(frozen=True)
class Calibration:
    """Where the threshold comes from and what it promises.

    Attributes:
        method: `leave-one-image-out`: each support image is scored against the others, all its own views taken
            out. `leave-one-view-out`: only one image was there and its views stand in for further ones, which
            says little about how good parts differ.
        n: Number of good images behind it.
        threshold: Image scores above it are anomalous.
        false_reject_rate: The share of good parts that will be rejected if they come from where the support set came
            from, as far as n images can promise: 1 / (n + 1).
        status: `provisional`: enough to start a line, too little to promise a rate.
        scores: The held-out scores, in the order of the support set.
        map_scale: Fixed scale of the maps.
        map_peaks: The highest value of each held-out map, in the same order.
    """

    method: Method
    n: int
    threshold: float
    false_reject_rate: float
    status: Literal["provisional"]
    scores: tuple[float, ...]
    map_scale: MapScale
    map_peaks: tuple[float, ...] = ()

    def explain(self) -> str:
        """One paragraph for the engineer."""
        how = (
            f"each of {self.n} support images was scored against the others"
            if self.method == "leave-one-image-out"
            else "only one image was given, so its views were scored against each other"
        )
        return (
            f"threshold {self.threshold:.4g} ({self.status}): {how}; scores {min(self.scores):.4g} to "
            f"{max(self.scores):.4g}. With n = {self.n} it can promise no better than about "
            f"{self.false_reject_rate:.0%} of good parts rejected, if they come from where these came from."
        )

    def map_scale_at(self, threshold: float) -> MapScale:
        """The scale of the maps for a threshold of the score; it moves in proportion where that was set by hand."""
        if threshold == self.threshold:
            return self.map_scale
        good, limit = self.map_scale.median_good, self.map_scale.threshold
        width = (limit - good) * threshold / self.threshold
        # The maps are float32: a tiny threshold must not make a scale of zero width, nor a huge one an infinite one.
        return MapScale(good, good + min(max(width, 1e-6 * good + 1e-12), 1e36))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Calibration:
        """Rebuild from `dataclasses.asdict` after a trip through JSON."""
        lists = {"scores": tuple(fields["scores"]), "map_peaks": tuple(fields.get("map_peaks", ()))}
        return cls(**{**fields, **lists, "map_scale": MapScale(**fields["map_scale"])})


def calibrate(
    scores: Sequence[float], map_peaks: Sequence[float], median_good: float, method: Method, n: int
) -> Calibration:
    """Set the thresholds from held-out scores of good images.

    Args:
        scores: Held-out image scores, positive.
        map_peaks: The highest value of each held-out map.
        median_good: Median held-out patch distance.
        method: How they were held out.
        n: Number of good images behind them.
    """
    alpha = 1 / (n + 1)
    peak = prediction_limit(map_peaks, alpha)
    return Calibration(
        method=method,
        n=n,
        threshold=prediction_limit(scores, alpha),
        false_reject_rate=alpha,
        status="provisional",
        scores=tuple(float(s) for s in scores),
        # A flat map (identical images) must not make a scale of zero width.
        map_scale=MapScale(float(median_good), max(peak, median_good * 1.05 + 1e-6)),
        map_peaks=tuple(float(p) for p in map_peaks),
    )


def prediction_limit(scores: Sequence[float], alpha: float) -> float:
    """Upper limit that the next good score stays below with probability 1 - alpha.

    Student-t prediction limit on log scores, floored by the largest of them:
    exp(mean + t(1 - alpha, n - 1) sd sqrt(1 + 1/n)). Distances are positive and skewed; their logarithm is close to
    normal, and a limit on it cannot fall below zero.

    Args:
        scores: (n,) positive scores.
        alpha: Probability that the next good score is above, 0..0.5.

    Source: Hahn & Meeker 1991, Statistical Intervals, section 4.7.
    """
    values = np.maximum(np.asarray(scores, np.float64), 1e-12)
    # Not the largest score itself: a decision is "above", and the same image must not tip over by rounding.
    floor = float(values.max()) * (1 + 1e-6)
    if len(values) < 2:
        return floor
    logs = np.log(values)
    t = student_t_quantile(1 - alpha, len(values) - 1)
    limit = float(np.exp(logs.mean() + t * logs.std(ddof=1) * np.sqrt(1 + 1 / len(values))))
    return max(limit, floor)


@functools.lru_cache(maxsize=64)
def student_t_quantile(probability: float, degrees_of_freedom: int) -> float:
    """Quantile of Student's t distribution.

    With t = sqrt(v) tan(u) the density becomes cos(u)^(v - 1) on (-pi/2, pi/2), which is integrated numerically:
    right to about 1e-6 for probabilities in 0.001..0.999.
    """
    angle: npt.NDArray[np.float64] = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    density = np.cos(angle).clip(0) ** (degrees_of_freedom - 1)
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    position = float(np.interp(probability, cumulative / cumulative[-1], angle))
    return float(np.sqrt(degrees_of_freedom) * np.tan(position))
