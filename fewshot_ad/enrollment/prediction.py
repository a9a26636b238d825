"""The predictive distribution of the next good score, and the threshold of least expected cost that follows from it.

`POPULATION` holds what was learned of other products.

Sources: Gelman et al. 2013, Bayesian Data Analysis, sections 2.6 and 5.4 (normal model with pooled variance); Huber
1964 (location); Ferguson 1973 (a distribution and counts weighed against each other: the Dirichlet process); Berger
1985, section 4.4 (threshold of least expected cost).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float64Array
from fewshot_ad.enrollment.probes import DefectKind
from fewshot_ad.metrics.distributions import normal_above, student_t_above, student_t_quantile

# The good limit, below which no threshold of least cost lies: so many spreads above the predicted mean, less so many
# standard deviations of the mean's error. With few images it can well lie that much lower.
LIMIT_SPREADS, LIMIT_ERRORS = 1.8, 1.0
# Draws of the posterior, and the probability of the stated bound.
DRAWS = 4000
BOUND = 0.95
# How many observed scores the shape of the model is worth.
MODEL_WEIGHT = 20


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
            defects of the largest size.
        defect_spread: Standard deviation of the logarithm of a real defect's excess.
    """

    bias: tuple[float, float]
    spread_of_bias: float
    spread: float
    spread_weight: float
    defect: tuple[float, float]
    defect_spread: float


# Of nine products of real photographs: benchmarks/verdicts.py --fit.
POPULATION = Population(
    bias=(0.0, -0.088), spread_of_bias=0.137, spread=0.073, spread_weight=50, defect=(0.04, 0.8), defect_spread=0.9
)
# Log scores farther than this from their center count less for it. Fixed, and not learned with `POPULATION`: so a
# product that is judged has no part in it.
OUTLYING = 0.12
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
class Prediction:
    """The predictive distribution of the next good log score.

    That of a model, Student's t; where scores of good images that were not enrolled were observed, mixed with these:
    the more there are, the less the shape of the model counts, which knows nothing of a product's odd parts.

    Attributes:
        mean: The model's location.
        spread: Standard deviation of the scores of one product's good parts, as estimated.
        spread_of_mean: Standard deviation of the error of the location.
        freedom: Degrees of freedom of the estimated spread.
        observed: The observed log scores, ascending.
    """

    mean: float
    spread: float
    spread_of_mean: float
    freedom: float
    observed: tuple[float, ...] = ()

    @classmethod
    def of(cls, evidence: Evidence, population: Population) -> Prediction:
        """From held-out scores and what other products taught."""
        n, logs = evidence.distinct, log_scores(evidence.scores)
        center = location(logs)
        # What a line varies and the support set may not: a burst of near-identical images, say.
        varied = location(log_scores(evidence.nuisances)) - center if evidence.nuisances else 0.0
        own = float(((logs - center) ** 2).mean()) * (n - 1)
        freedom = population.spread_weight + n - 1
        return cls(
            mean=center + max(0.0, varied) + population.bias[0] + population.bias[1] / n,
            spread=math.sqrt((population.spread_weight * population.spread**2 + own) / freedom),
            spread_of_mean=population.spread_of_bias / math.sqrt(n),
            freedom=freedom,
        )

    @classmethod
    def measured(cls, scores: Sequence[float], population: Population) -> Prediction:
        """From scores (n,) of good images that were not enrolled, and what other products taught of their spread.

        They are what is to be predicted, so there is no bias between them and the next; the error of their mean is
        that of a mean.
        """
        n, logs = len(scores), log_scores(scores)
        center = location(logs)
        freedom = population.spread_weight + n - 1
        squares = population.spread_weight * population.spread**2 + float(((logs - center) ** 2).mean()) * (n - 1)
        spread = math.sqrt(squares / freedom)
        return cls(center, spread, spread / math.sqrt(n), freedom, tuple(sorted(logs.tolist())))

    @property
    def scale(self) -> float:
        """Scale of the model's predictive distribution."""
        return math.hypot(self.spread, self.spread_of_mean)

    def false_rejects(self, limits: npt.ArrayLike, *, chosen: bool = False) -> Float64Array:
        """Expected share of good parts with a log score above each limit (k,).

        Args:
            limits: Log scores.
            chosen: Whether the limit was chosen by the observed scores: then one more counts as above it, as it does in
                conformal prediction.
        """
        modeled = student_t_above((np.asarray(limits, np.float64) - self.mean) / self.scale, self.freedom)
        further = float(chosen and bool(self.observed))
        above = self._count_above(limits) + further
        return (MODEL_WEIGHT * modeled + above) / (MODEL_WEIGHT + len(self.observed) + further)

    def promise(self, limit: float, *, chosen: bool = False) -> tuple[float, float]:
        """What may be promised at a limit: the expected share of false rejects, and its bound.

        The far tail of the model is no more than its shape, nobody has seen it: each degree of freedom counts as one
        score seen, and neither is below what that many scores can show.
        """
        least, least_bound = 1 / (self.freedom + 2), 1 - (1 - BOUND) ** (1 / (self.freedom + 1))
        rate = float(self.false_rejects(limit, chosen=chosen))
        return max(rate, least), max(self.bound(limit, chosen=chosen), least_bound)

    def limit(self, share: float) -> float:
        """The lowest log score that no more than a share of good parts is expected to exceed, as one that is chosen.

        Where so few were observed that none is such, none of them and that share of the model exceeds it.
        """
        n = len(self.observed)
        further = min(n, 1)
        candidates = []
        for above in range(n + 1):
            # What is left to the model if so many of the observed scores are above the limit.
            left = (share * (MODEL_WEIGHT + n + further) - above - further) / MODEL_WEIGHT
            if left > 0:
                observed = self.observed[n - 1 - above] if above < n else -math.inf
                candidates.append(max(self._modeled_limit(left), observed))
        return min(candidates) if candidates else max(self._modeled_limit(share), self.observed[-1])

    def bound(self, limit: float, *, chosen: bool = False) -> float:
        """The share of good parts above a limit that is not exceeded with a probability of `BOUND`."""
        rng = np.random.default_rng(0)
        spread = self.spread * np.sqrt(self.freedom / rng.chisquare(self.freedom, DRAWS))
        mean = self.mean + self.spread_of_mean * rng.standard_normal(DRAWS)
        rates = normal_above((limit - mean) / spread)
        if self.observed:
            above = float(self._count_above(limit))
            below, smallest = len(self.observed) - above, np.finfo(np.float64).tiny
            rates = rng.beta(
                np.maximum(MODEL_WEIGHT * rates + above + chosen, smallest),
                np.maximum(MODEL_WEIGHT * (1 - rates) + below, smallest),
            )
        return float(np.quantile(rates, BOUND))

    def _modeled_limit(self, share: float) -> float:
        """The log score that a share of the model exceeds."""
        if share >= 1:
            return -math.inf
        return self.mean + self.scale * student_t_quantile(1 - share, self.freedom)

    def _count_above(self, limits: npt.ArrayLike) -> Float64Array:
        return len(self.observed) - np.searchsorted(self.observed, limits, side="right").astype(np.float64)


def least_cost(prediction: Prediction, evidence: Evidence, population: Population, cost_ratio: float) -> float:
    """The log score at which the expected cost of false rejects and escapes is least.

    It is never below the good limit, and otherwise never above the median drawn defect of the largest size. So
    whoever says that smaller defects matter gets a lower threshold.
    """
    drawn = reference_scores(evidence.defects)
    lowest = prediction.mean + LIMIT_SPREADS * prediction.spread - LIMIT_ERRORS * prediction.spread_of_mean
    highest = float(np.median(log_scores(drawn))) if drawn else math.inf
    above = highest - prediction.mean if drawn else 0.0
    excess = max(SMALLEST_EXCESS, population.defect[0] + population.defect[1] * max(0.0, above))
    limits = prediction.mean + np.linspace(0, 8 * prediction.scale + 2 * excess, 1000)
    rejected = prediction.false_rejects(limits)
    with np.errstate(divide="ignore"):
        standard = (np.log((limits - prediction.mean) / excess)) / population.defect_spread
    escaped = 1 - normal_above(standard)
    best = float(limits[np.argmin(rejected + cost_ratio * escaped)])
    return max(lowest, min(best, highest))


def reference_scores(defects: Sequence[ScoredDefect]) -> list[float]:
    """The scores of the drawn defects of the largest size, which stand for a defect of the ordinary kind."""
    largest = max((defect.size for defect in defects), default=0.0)
    return [defect.score for defect in defects if defect.size == largest]


def location(logs: npt.ArrayLike) -> float:
    """Huber's location of log scores (n,): their mean, in which what lies far out counts less."""
    values = np.asarray(logs, np.float64)
    center = float(np.median(values))
    for _ in range(20):
        weights = np.minimum(1, OUTLYING / np.maximum(np.abs(values - center), 1e-9))
        center = float((weights * values).sum() / weights.sum())
    return center


def log_scores(scores: Sequence[float]) -> Float64Array:
    """Natural logarithms of scores (n,), of which the smallest is taken as 1e-12."""
    return np.log(np.maximum(np.asarray(scores, np.float64), 1e-12))
