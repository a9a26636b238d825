"""A threshold from further images: good ones that were not enrolled, and defective ones where there are such.

Scores of good images that the memory bank does not hold are drawn from what is to be predicted, so they take the place
of the held-out scores and of what other products taught of the bias between these and the next good part.

Sources: Gelman et al. 2013, Bayesian Data Analysis, section 3.3 (normal model, both parameters unknown); Vovk,
Gammerman & Shafer 2005 (conformal prediction); `metrics.threshold_of_labeled` for labeled images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from fewshot_ad.enrollment.calibration import Calibration, Method, Status
from fewshot_ad.enrollment.prediction import POPULATION, Population, Prediction, least_cost
from fewshot_ad.metrics import (
    Rate,
    binomial_interval,
    conformal_rank,
    false_reject_law,
    needed_for,
    threshold_of_labeled,
)

# A threshold that is a score itself must not be tipped over by rounding.
MARGIN = 1e-6
# Where no rate is asked for, a threshold counts as measured from as many good images as could promise this one.
LOOSEST_PROMISE = 0.1
# A product's threshold is above 0, whatever its scores are.
_SMALLEST = 1e-12


def recalibrate(
    before: Calibration,
    good_scores: Sequence[float],
    bad_scores: Sequence[float],
    max_false_reject: float | None,
    population: Population = POPULATION,
    max_review: float | None = None,
) -> Calibration:
    """Set the threshold from the scores of further images.

    With bad images it is the one of lowest cost. With good ones alone and a limit on false rejects it is their
    conformal quantile, or the quantile of their predictive distribution where they are too few for that; without such
    a limit, the expected cost is least, with the defects drawn at enrollment as the other side.

    Args:
        before: The product's calibration; its held-out scores and drawn defects stay on record.
        good_scores: (n,) scores of good images, one at least; none of them enrolled.
        bad_scores: (m,) scores of bad images; may be empty.
        max_false_reject: Highest share of good parts to be rejected, between 0 and 1; None for no limit.
        population: What other products taught of the spread of good scores.
        max_review: Share of good parts that may be looked at by someone, those rejected among them; None for none.

    Raises:
        ArgumentError: A score is not finite, or a rate is out of range.
    """
    good, bad = tuple(map(float, good_scores)), tuple(map(float, bad_scores))
    enough = len(good) >= needed_for(LOOSEST_PROMISE if max_false_reject is None else max_false_reject)
    status: Status = "calibrated" if enough else "provisional"
    if bad:
        return _with_review(_labeled(before, good, bad, max_false_reject, status), max_review, population)
    rank = None if max_false_reject is None else conformal_rank(len(good), max_false_reject)
    if rank is not None:
        law = false_reject_law(rank, len(good))
        threshold = sorted(good)[rank - 1] * (1 + MARGIN)
        return _with_review(_replaced(before, "conformal", status, threshold, good, *law), max_review, population)
    prediction = Prediction.measured(good, population)
    if max_false_reject is None:
        limit = least_cost(prediction, before.evidence(), population, 1.0)
    else:
        limit = prediction.limit(max_false_reject)
    promise = prediction.promise(limit, chosen=True)
    calibration = _replaced(before, "posterior-predictive", status, math.exp(limit), good, *promise)
    return _with_review(calibration, max_review, population)


def _with_review(calibration: Calibration, max_review: float | None, population: Population) -> Calibration:
    """The calibration with a band of scores to be looked at, if there is any below its threshold."""
    if max_review is None:
        return calibration
    good = calibration.further_scores
    rank = conformal_rank(len(good), max_review)
    if rank is None:
        prediction = Prediction.measured(good, population)
        limit = prediction.limit(max_review)
        threshold, rate = math.exp(limit), prediction.promise(limit, chosen=True)[0]
    else:
        threshold, rate = sorted(good)[rank - 1] * (1 + MARGIN), false_reject_law(rank, len(good))[0]
    if not _SMALLEST < threshold < calibration.threshold:
        return calibration
    return dataclasses.replace(calibration, review_threshold=threshold, review_rate=rate)


def _labeled(
    before: Calibration,
    good: tuple[float, ...],
    bad: tuple[float, ...],
    max_false_reject: float | None,
    status: Status,
) -> Calibration:
    found = threshold_of_labeled(good, bad, max_false_reject=max_false_reject)
    # What it was chosen on flatters it; of a single image of a kind there is nothing else.
    rejects = found.held_out_false_rejects or found.false_rejects
    escapes = found.held_out_escapes or found.escapes
    calibration = _replaced(before, "labeled", status, found.threshold, good, rejects.rate, _upper(rejects))
    return dataclasses.replace(
        calibration,
        status=status if found.held_out_escapes is not None else "provisional",
        bad_scores=bad,
        threshold_interval=found.interval,
        escape_rate=escapes.rate,
        escape_bound=_upper(escapes),
    )


def _upper(rate: Rate) -> float:
    """Where the exact one-sided 95% interval of a counted rate ends."""
    return binomial_interval(rate.count, rate.total, 0.9)[1]


def _replaced(
    before: Calibration,
    method: Method,
    status: Status,
    threshold: float,
    good: tuple[float, ...],
    false_reject_rate: float,
    false_reject_bound: float,
) -> Calibration:
    threshold = max(threshold, _SMALLEST)
    return dataclasses.replace(
        before,
        method=method,
        n=len(good),
        threshold=threshold,
        false_reject_rate=false_reject_rate,
        status=status,
        map_scale=before.map_scale_at(threshold),
        false_reject_bound=false_reject_bound,
        further_scores=good,
        bad_scores=(),
        threshold_interval=None,
        escape_rate=None,
        escape_bound=None,
        review_threshold=None,
        review_rate=None,
    )
