"""A threshold from good images only, with what it can honestly promise.

The threshold weighs two things against each other. One is the predictive distribution of the next good score: the
held-out scores of the support images, corrected and widened by what was learned of other products. The other is where
defects score: on this product, defects of known size were drawn on the support images; how real defects score next to
drawn ones was again learned of other products. `POPULATION` holds what was learned.

Sources: Gelman et al. 2013, Bayesian Data Analysis, sections 2.6 and 5.4 (normal model with pooled variance);
Huber 1964 (location); Berger 1985, section 4.4 (threshold of least expected cost).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float64Array
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.probes import REFERENCE_SIZE, DefectKind
from fewshot_ad.regions import MapScale

Method: TypeAlias = Literal["leave-one-image-out", "leave-one-view-out", "conformal", "labelled"]
Status: TypeAlias = Literal["provisional", "calibrated"]

# No threshold of equal costs may reject more than this share of good parts, as predicted.
MOST_REJECTED = 0.25
# Draws of the posterior, and the probability of the stated bound.
DRAWS = 4000
BOUND = 0.95


@dataclass(frozen=True)
class Population:
    """What other products taught about scores; logarithms throughout, since scores are positive and skewed.

    Attributes:
        bias: Mean log score of the next good parts above the held-out one: `bias[0] + bias[1] / n`. A held-out image
            is compared with one image less than the next part will be.
        spread_of_bias: Standard deviation of that between products, times the root of n.
        spread: Standard deviation of log scores of good parts of one product.
        spread_weight: How many observations that spread is worth beside a product's own.
        defect: Median log score of real defects above good parts: `defect[0] + defect[1] x`, where x is that of drawn
            defects of `REFERENCE_SIZE`.
        defect_spread: Standard deviation of the logarithm of a real defect's excess.
    """

    bias: tuple[float, float]
    spread_of_bias: float
    spread: float
    spread_weight: float
    defect: tuple[float, float]
    defect_spread: float


# Of nine products of real photographs and 34 generated ones: benchmarks/verdicts.py --fit.
POPULATION = Population(
    bias=(-0.024, -0.098), spread_of_bias=0.148, spread=0.08, spread_weight=20, defect=(0.05, 1.58), defect_spread=0.7
)
# A real defect is expected at least so far above good parts, in logarithms.
SMALLEST_EXCESS = 0.05


@dataclass(frozen=True)
class ScoredDefect:
    """A drawn defect and its score on a support image that the bank did not hold; see `probes.DrawnDefect`."""

    image: int
    kind: DefectKind
    size: float
    seed: int
    score: float


@dataclass(frozen=True)
class Evidence:
    """What a threshold rests on, all of it scored against a bank that did not hold the image.

    Attributes:
        scores: Held-out scores, positive.
        map_peaks: The highest value of each held-out map.
        median_good: Median held-out patch distance.
        nuisances: Scores of the same images after what a line varies.
        defects: The drawn defects.
        distinct: Number of images that differ by more than noise.
        views_only: Whether views of a single image stand in for images.
    """

    scores: tuple[float, ...]
    map_peaks: tuple[float, ...]
    median_good: float
    nuisances: tuple[float, ...]
    defects: tuple[ScoredDefect, ...]
    distinct: int
    views_only: bool


@dataclass(frozen=True)
class Calibration:
    """Where the threshold comes from and what it promises.

    Attributes:
        method: `leave-one-image-out`: each support image is scored against the others, all its own views taken
            out. `leave-one-view-out`: only one image was there and its views stand in for further ones, which
            says little about how good parts differ. `conformal`: a quantile of the scores of further good images.
            `labelled`: chosen between labelled good and bad images.
        n: Number of good images behind it.
        threshold: Image scores above it are anomalous.
        false_reject_rate: The share of good parts that is expected to be rejected if they come from where these came
            from.
        status: `provisional`: predicted from few images; `calibrated`: measured on further ones.
        scores: The held-out scores, in the order of the support set.
        map_scale: Fixed scale of the maps.
        map_peaks: The highest value of each held-out map, in the same order.
        false_reject_bound: With a probability of 95%, no more than this share will be rejected; None in files of
            earlier versions.
        distinct: Number of these images that differ by more than noise; None likewise.
        nuisances: Scores of the support images after what a line varies.
        defects: The drawn defects and their scores.
    """

    method: Method
    n: int
    threshold: float
    false_reject_rate: float
    status: Status
    scores: tuple[float, ...]
    map_scale: MapScale
    map_peaks: tuple[float, ...] = ()
    false_reject_bound: float | None = None
    distinct: int | None = None
    nuisances: tuple[float, ...] = ()
    defects: tuple[ScoredDefect, ...] = ()

    def explain(self) -> str:
        """One paragraph for the engineer."""
        scores = f"scores {min(self.scores):.4g} to {max(self.scores):.4g}"
        how = {
            "leave-one-image-out": f"each of {self.n} support images was scored against the others; {scores}",
            "leave-one-view-out": f"only one image was given, so its views were scored against each other; {scores}",
            "conformal": f"a quantile of the scores of {self.n} further good images",
            "labelled": f"chosen between {self.n} good images and labelled bad ones",
        }[self.method]
        text = (
            f"threshold {self.threshold:.4g} ({self.status}): {how}. Expects {self.false_reject_rate:.1%} of good "
            "parts rejected, if they come from where these came from"
        )
        if self.false_reject_bound is not None:
            text += f"; with 95% probability no more than {self.false_reject_bound:.1%}"
        return text + "."

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
        lists = {name: tuple(fields.get(name, ())) for name in ("scores", "map_peaks", "nuisances")}
        defects = tuple(ScoredDefect(**defect) for defect in fields.get("defects", ()))
        return cls(**{**fields, **lists, "defects": defects, "map_scale": MapScale(**fields["map_scale"])})

    def evidence(self) -> Evidence:
        """What it rests on."""
        return Evidence(
            self.scores,
            self.map_peaks,
            self.map_scale.median_good,
            self.nuisances,
            self.defects,
            self.distinct or self.n,
            self.method == "leave-one-view-out",
        )


def calibrate(
    evidence: Evidence, settings: EnrollmentSettings, population: Population = POPULATION, cost_ratio: float = 1.0
) -> Calibration:
    """Set the threshold where the expected cost of false rejects and escapes is least.

    Where `settings.max_false_reject` is given, the threshold is the lowest that is predicted to reject no more.

    Args:
        evidence: What it rests on.
        settings: The operator's limit on false rejects.
        population: What other products taught.
        cost_ratio: Cost of an escape over that of a false reject.
    """
    prediction = Prediction.of(evidence, population)
    if settings.max_false_reject is not None:
        limit = prediction.limit(settings.max_false_reject)
    else:
        limit = least_cost(prediction, evidence, population, cost_ratio)
    peaks = np.log(np.maximum(evidence.map_peaks, 1e-12))
    # The map's limit lies as far above the held-out maps' peaks as the score's lies above the held-out scores.
    peak = math.exp(location(peaks) + limit - location(_logs(evidence.scores)))
    return Calibration(
        method="leave-one-view-out" if evidence.views_only else "leave-one-image-out",
        n=1 if evidence.views_only else len(evidence.scores),
        threshold=math.exp(limit),
        false_reject_rate=prediction.false_rejects(limit),
        status="provisional",
        scores=tuple(float(s) for s in evidence.scores),
        # A flat map (identical images) must not make a scale of zero width.
        map_scale=MapScale(evidence.median_good, max(peak, evidence.median_good * 1.05 + 1e-6)),
        map_peaks=tuple(float(p) for p in evidence.map_peaks),
        false_reject_bound=prediction.bound(limit),
        distinct=evidence.distinct,
        nuisances=evidence.nuisances,
        defects=evidence.defects,
    )


def extended_calibration(
    before: Calibration, scores: Sequence[float], map_peaks: Sequence[float], settings: EnrollmentSettings
) -> Calibration:
    """The calibration with further good images in the bank.

    Their scores join the held-out ones, which stay as they are: that is on the safe side for good parts, since with
    more images they could only have become smaller. One that rests on images apart from the bank stays for the same
    reason.

    Args:
        before: The calibration as it is.
        scores: Scores of the new images against the bank before them.
        map_peaks: The highest value of each one's map.
        settings: The product's.
    """
    if before.status == "calibrated":
        return before
    evidence = before.evidence()
    return calibrate(
        dataclasses.replace(
            evidence,
            scores=(*evidence.scores, *scores),
            map_peaks=(*evidence.map_peaks, *map_peaks),
            distinct=evidence.distinct + len(scores),
        ),
        settings,
    )


@dataclass(frozen=True)
class Prediction:
    """The predictive distribution of the next good log score: Student's t.

    Attributes:
        mean: Its location.
        spread: Standard deviation of the scores of one product's good parts, as estimated.
        spread_of_mean: Standard deviation of the error of the location.
        freedom: Degrees of freedom of the estimated spread.
    """

    mean: float
    spread: float
    spread_of_mean: float
    freedom: float

    @classmethod
    def of(cls, evidence: Evidence, population: Population) -> Prediction:
        """From held-out scores and what other products taught."""
        n, logs = evidence.distinct, _logs(evidence.scores)
        center = location(logs)
        # What a line varies and the support set may not: a burst of near-identical images, say.
        varied = location(_logs(evidence.nuisances)) - center if evidence.nuisances else 0.0
        own = float(((logs - center) ** 2).mean()) * (n - 1)
        freedom = population.spread_weight + n - 1
        return cls(
            mean=center + max(0.0, varied) + population.bias[0] + population.bias[1] / n,
            spread=math.sqrt((population.spread_weight * population.spread**2 + own) / freedom),
            spread_of_mean=population.spread_of_bias / math.sqrt(n),
            freedom=freedom,
        )

    @property
    def scale(self) -> float:
        """Scale of the predictive distribution."""
        return math.hypot(self.spread, self.spread_of_mean)

    def false_rejects(self, limit: float) -> float:
        """Expected share of good parts with a log score above a limit."""
        return float(student_t_above((limit - self.mean) / self.scale, self.freedom))

    def limit(self, share: float) -> float:
        """The log score that a share of good parts is expected to exceed."""
        return self.mean + self.scale * student_t_quantile(1 - share, self.freedom)

    def bound(self, limit: float) -> float:
        """The share of good parts above a limit that is not exceeded with a probability of `BOUND`."""
        rng = np.random.default_rng(0)
        spread = self.spread * np.sqrt(self.freedom / rng.chisquare(self.freedom, DRAWS))
        mean = self.mean + self.spread_of_mean * rng.standard_normal(DRAWS)
        return float(np.quantile(_normal_above((limit - mean) / spread), BOUND))


def least_cost(prediction: Prediction, evidence: Evidence, population: Population, cost_ratio: float) -> float:
    """The log score at which the expected cost of false rejects and escapes is least.

    It is never so low that more than `MOST_REJECTED` of good parts are expected to be rejected, and otherwise never
    above the median drawn defect of `REFERENCE_SIZE`.
    """
    drawn = [d.score for d in evidence.defects if d.size == REFERENCE_SIZE]
    lowest = prediction.limit(MOST_REJECTED)
    highest = float(np.median(_logs(drawn))) if drawn else math.inf
    above = highest - prediction.mean if drawn else 0.0
    excess = max(SMALLEST_EXCESS, population.defect[0] + population.defect[1] * max(0.0, above))
    limits = prediction.mean + np.linspace(0, 8 * prediction.scale + 2 * excess, 1000)
    rejected = student_t_above((limits - prediction.mean) / prediction.scale, prediction.freedom)
    with np.errstate(divide="ignore"):
        standard = (np.log((limits - prediction.mean) / excess)) / population.defect_spread
    escaped = 1 - _normal_above(standard)
    best = float(limits[np.argmin(rejected + cost_ratio * escaped)])
    return max(lowest, min(best, highest))


def location(logs: npt.ArrayLike) -> float:
    """Huber's location of log scores (n,): their mean, in which what lies far out counts less."""
    values = np.asarray(logs, np.float64)
    center = float(np.median(values))
    for _ in range(20):
        weights = np.minimum(1, 1.5 * POPULATION.spread / np.maximum(np.abs(values - center), 1e-9))
        center = float((weights * values).sum() / weights.sum())
    return center


def _logs(scores: Sequence[float]) -> Float64Array:
    return np.log(np.maximum(np.asarray(scores, np.float64), 1e-12))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _normal_above(standard: Float64Array) -> Float64Array:
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
