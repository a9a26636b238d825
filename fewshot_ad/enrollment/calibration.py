"""A threshold from good images only, with what it can honestly promise.

The threshold weighs two things against each other. One is the predictive distribution of the next good score: the
held-out scores of the support images, corrected and widened by what was learned of other products. The other is where
defects score: on this product, defects of known size were drawn on the support images; how real defects score next to
drawn ones was again learned of other products. See `prediction`; and `recalibration` for further images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fewshot_ad.enrollment.prediction import (
    POPULATION,
    Evidence,
    Population,
    Prediction,
    ScoredDefect,
    least_cost,
    location,
    log_scores,
)
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.inspection.regions import MapScale

Method: TypeAlias = Literal["leave-one-image-out", "leave-one-view-out", "posterior-predictive", "conformal", "labeled"]
# Those that rest on images apart from the support set.
FURTHER_METHODS: tuple[Method, ...] = ("posterior-predictive", "conformal", "labeled")
Status: TypeAlias = Literal["provisional", "calibrated"]


@dataclass(frozen=True)
class Calibration:
    """Where the threshold comes from and what it promises.

    Attributes:
        method: `leave-one-image-out`: each support image is scored against the others, all its own views taken
            out. `leave-one-view-out`: only one image was there and its views stand in for further ones, which
            says little about how good parts differ. Of further images, see `recalibration`: `posterior-predictive`:
            predicted from the scores of good ones; `conformal`: a quantile of these; `labeled`: chosen between good
            and bad ones.
        n: Number of good images behind it.
        threshold: Image scores above it are anomalous.
        false_reject_rate: The share of good parts that is expected to be rejected if they come from where these came
            from.
        status: `provisional`: predicted from few images; `calibrated`: measured on further ones, enough for what is
            promised.
        scores: The held-out scores, in the order of the support set.
        map_scale: Fixed scale of the maps.
        map_peaks: The highest value of each held-out map, in the same order.
        false_reject_bound: With a probability of 95%, no more than this share will be rejected; None in files of
            earlier versions.
        distinct: Number of these images that differ by more than noise; None likewise.
        nuisances: Scores of the support images after what a line varies.
        defects: The drawn defects and their scores.
        further_scores: Scores of the good images that were not enrolled and that the threshold rests on; empty where it
            rests on the support set.
        bad_scores: Scores of the bad images, likewise.
        threshold_interval: Of a `labeled` one, what the middle 95% of bootstrap draws give as the threshold.
        escape_rate: Of a `labeled` one, the share of bad parts that is expected to be passed.
        escape_bound: With a confidence of 95%, no more than this share is passed; None likewise.
        review_threshold: Scores above it, and not above the threshold, are for someone to look at; None for no band.
        review_rate: The share of good parts that is expected to be looked at or rejected; None likewise.
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
    further_scores: tuple[float, ...] = ()
    bad_scores: tuple[float, ...] = ()
    threshold_interval: tuple[float, float] | None = None
    escape_rate: float | None = None
    escape_bound: float | None = None
    review_threshold: float | None = None
    review_rate: float | None = None

    def explain(self, by_hand: float | None = None) -> str:
        """One paragraph for the engineer.

        Args:
            by_hand: The threshold that holds in place of the calibration's, if one was set by hand.
        """
        if by_hand is None:
            return self._explain()
        prediction, limit = self.prediction(), math.log(by_hand)
        rate, bound = prediction.promise(limit)
        return (
            f"threshold {by_hand:.4g} (set by hand): expects {rate:.1%} of good parts rejected; with 95% probability "
            f"no more than {bound:.1%}. The calibration, not in force: {self._explain()}"
        )

    def _explain(self) -> str:
        own = f"scores {min(self.scores):.4g} to {max(self.scores):.4g}"
        further = self.further_scores or self.scores
        measured = f"the scores of {self.n} further good images, {min(further):.4g} to {max(further):.4g}"
        how = {
            "leave-one-image-out": f"each of {self.n} support images was scored against the others; {own}",
            "leave-one-view-out": f"only one image was given, so its views were scored against each other; {own}",
            "posterior-predictive": f"predicted from {measured}",
            "conformal": f"a quantile of {measured}",
            "labeled": f"chosen between {self.n} further good and {len(self.bad_scores)} bad images",
        }[self.method]
        text = f"threshold {self.threshold:.4g} ({self.status}): {how}"
        if self.threshold_interval is not None:
            low, high = self.threshold_interval
            text += f" ({low:.4g} to {high:.4g} in 95% of 1,000 bootstrap draws)"
        text += f". Expects {self.false_reject_rate:.1%} of good parts rejected"
        text += ", if they come from where these came from"
        if self.false_reject_bound is not None:
            text += f"; with 95% probability no more than {self.false_reject_bound:.1%}"
        if self.escape_rate is not None:
            text += f". Expects {self.escape_rate:.1%} of bad parts like these passed, at most {self.escape_bound:.1%}"
        if self.review_threshold is not None:
            text += (
                f". To be looked at from {self.review_threshold:.4g} on, {self.review_rate:.1%} of good parts in all"
            )
        return text + "."

    def review_below(self, threshold: float) -> float | None:
        """The review threshold, where it is below the threshold that holds; None for no such band."""
        own = self.review_threshold
        return own if own is not None and own < threshold else None

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
        typed: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        typed["defects"] = tuple(ScoredDefect(**defect) for defect in fields.get("defects", ()))
        typed["map_scale"] = MapScale(**fields["map_scale"])
        return cls(**typed)

    def prediction(self) -> Prediction:
        """The predictive distribution of the next good score: of the further images if there are such."""
        if self.further_scores:
            return Prediction.measured(self.further_scores, POPULATION)
        return Prediction.of(self.evidence(), POPULATION)

    def evidence(self) -> Evidence:
        """What the support set says."""
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
    rate, bound = prediction.promise(limit)
    peaks = np.log(np.maximum(evidence.map_peaks, 1e-12))
    # The map's limit lies as far above the held-out maps' peaks as the score's lies above the held-out scores.
    peak = math.exp(location(peaks) + limit - location(log_scores(evidence.scores)))
    return Calibration(
        method="leave-one-view-out" if evidence.views_only else "leave-one-image-out",
        n=1 if evidence.views_only else len(evidence.scores),
        threshold=math.exp(limit),
        false_reject_rate=rate,
        status="provisional",
        scores=tuple(float(s) for s in evidence.scores),
        # A flat map (identical images) must not make a scale of zero width.
        map_scale=MapScale(evidence.median_good, max(peak, evidence.median_good * 1.05 + 1e-6)),
        map_peaks=tuple(float(p) for p in evidence.map_peaks),
        false_reject_bound=bound,
        distinct=evidence.distinct,
        nuisances=evidence.nuisances,
        defects=evidence.defects,
    )


def extended_calibration(
    before: Calibration,
    scores: Sequence[float],
    map_peaks: Sequence[float],
    distinct: int,
    settings: EnrollmentSettings,
) -> Calibration:
    """The calibration with further good images in the bank.

    Their scores join the held-out ones, which stay as they are: that is on the safe side for good parts, since with
    more images they could only have become smaller. One that rests on images apart from the bank stays for the same
    reason.

    Args:
        before: The calibration as it is.
        scores: Scores of the new images against the bank before them.
        map_peaks: The highest value of each one's map.
        distinct: Number of the new images that differ by more than noise.
        settings: The product's.
    """
    if before.further_scores:
        return before
    evidence = before.evidence()
    return calibrate(
        dataclasses.replace(
            evidence,
            scores=(*evidence.scores, *scores),
            map_peaks=(*evidence.map_peaks, *map_peaks),
            distinct=evidence.distinct + min(distinct, len(scores)),
        ),
        settings,
    )
