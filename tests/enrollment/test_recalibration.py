"""Thresholds from the scores of further images."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from fewshot_ad import ArgumentError
from fewshot_ad.enrollment.calibration import Calibration, calibrate
from fewshot_ad.enrollment.prediction import MODEL_WEIGHT, POPULATION, Prediction
from fewshot_ad.enrollment.recalibration import recalibrate
from fewshot_ad.metrics import conformal_threshold, false_reject_law, threshold_of_labeled
from tests.enrollment.test_calibration import DEFAULTS, evidence


def good(n: int, seed: int = 0, spread: float = 0.06) -> list[float]:
    return np.exp(np.random.default_rng(seed).normal(0, spread, n)).tolist()


@pytest.fixture
def before() -> Calibration:
    return calibrate(evidence([1.0, 1.1, 0.9, 1.05], [1.6] * 8), DEFAULTS)


def test_with_enough_images_the_limit_is_promised_by_their_quantile(before: Calibration) -> None:
    scores = good(40)
    now = recalibrate(before, scores, [], 0.05)
    assert (now.method, now.status, now.n) == ("conformal", "calibrated", 40)
    assert now.threshold == pytest.approx(conformal_threshold(scores, 0.05), rel=1e-5)
    # Rounding of the score that the threshold is must not reject it.
    assert now.threshold > conformal_threshold(scores, 0.05)
    law = false_reject_law(39, 40)
    assert (now.false_reject_rate, now.false_reject_bound) == (law.expected, law.upper)
    assert now.false_reject_rate <= 0.05


@pytest.mark.parametrize(("n", "share"), [(1, 0.05), (5, 0.05), (18, 0.05), (30, 0.01)])
def test_with_too_few_the_limit_is_predicted(before: Calibration, n: int, share: float) -> None:
    scores = good(n)
    now = recalibrate(before, scores, [], share)
    assert (now.method, now.status, now.n) == ("posterior-predictive", "provisional", n)
    assert now.threshold >= max(scores)
    # Of so few scores, one more may always be above.
    assert now.false_reject_rate <= max(share, (MODEL_WEIGHT * share + 1) / (MODEL_WEIGHT + n + 1)) + 1e-4


def test_without_a_limit_the_drawn_defects_are_the_other_side(before: Calibration) -> None:
    far = dataclasses.replace(before, defects=tuple(dataclasses.replace(d, score=5.0) for d in before.defects))
    near = dataclasses.replace(before, defects=tuple(dataclasses.replace(d, score=1.15) for d in before.defects))
    assert recalibrate(far, good(30), [], None).threshold > recalibrate(near, good(30), [], None).threshold
    assert recalibrate(before, good(30), [], None).status == "calibrated"
    assert recalibrate(before, good(8), [], None).status == "provisional"


def test_more_images_narrow_what_is_promised(before: Calibration) -> None:
    bounds = [recalibrate(before, good(n), [], None).false_reject_bound for n in (5, 20, 80)]
    assert bounds == sorted(bounds, reverse=True)


def test_rejects_among_the_images_count_against_the_shape_of_the_model(before: Calibration) -> None:
    scores = [*good(28), 1.9, 2.0]
    predicted = Prediction.measured(scores, POPULATION)
    at = math.log(1.8)
    model = dataclasses.replace(predicted, observed=())
    assert float(model.false_rejects(at)) < 0.01
    expected = (MODEL_WEIGHT * float(model.false_rejects(at)) + 2) / (MODEL_WEIGHT + 30)
    assert float(predicted.false_rejects(at)) == pytest.approx(expected)
    chosen = float(predicted.false_rejects(at, chosen=True))
    assert expected < chosen < predicted.bound(at, chosen=True)


def test_the_bound_holds_for_products_with_odd_parts(before: Calibration) -> None:
    # One good part in twenty is odd, which no bell shape foresees.
    rng, held = np.random.default_rng(1), 0
    for _ in range(200):
        scores = np.exp(rng.normal(0, 0.06, 40)) * np.where(rng.random(40) < 0.05, 1.6, 1.0)
        now = recalibrate(before, scores.tolist(), [], None)
        new = np.exp(rng.normal(0, 0.06, 2000)) * np.where(rng.random(2000) < 0.05, 1.6, 1.0)
        held += bool(np.mean(new > now.threshold) <= (now.false_reject_bound or 0))
    assert held >= 180


def test_the_quantile_of_few_scores_is_the_lowest_that_keeps_the_limit() -> None:
    for n in (0, 3, 25):
        predicted = Prediction.measured(good(max(n, 2)), POPULATION)
        predicted = predicted if n else dataclasses.replace(predicted, observed=())
        for share in (0.06, 0.1, 0.4):
            limit = predicted.limit(share)
            assert float(predicted.false_rejects(limit, chosen=True)) <= share + 1e-4
            assert float(predicted.false_rejects(limit - 1e-3, chosen=True)) > share - 1e-4


def test_bad_images_decide_with_an_interval_and_held_out_rates(before: Calibration) -> None:
    scores, bad = good(30), np.exp(np.random.default_rng(1).normal(0.25, 0.1, 20)).tolist()
    now = recalibrate(before, scores, bad, None)
    found = threshold_of_labeled(scores, bad)
    assert (now.method, now.status) == ("labeled", "calibrated")
    assert (now.threshold, now.threshold_interval) == (found.threshold, found.interval)
    assert now.false_reject_rate == found.held_out_false_rejects.rate
    assert now.escape_rate == found.held_out_escapes.rate < now.escape_bound < 1
    text = now.explain()
    for part in ("30 further good and 20 bad images", "bootstrap", f"{now.escape_rate:.1%} of bad parts"):
        assert part in text
    # A limit moves it up to where the good ones allow it.
    limited = recalibrate(before, scores, bad, 0.04)
    assert limited.threshold >= conformal_threshold(scores, 0.04)
    assert recalibrate(before, scores, bad, 0.01).status == "provisional"
    assert recalibrate(before, scores, bad[:1], None).status == "provisional"


def test_the_support_sets_side_and_the_maps_scale_are_kept(before: Calibration) -> None:
    now = recalibrate(before, good(30), [2.0, 2.1], None)
    assert (now.scores, now.defects, now.nuisances) == (before.scores, before.defects, before.nuisances)
    assert now.map_scale == before.map_scale_at(now.threshold)
    fields = json.loads(json.dumps(dataclasses.asdict(now)))
    assert Calibration.from_dict(fields) == now
    again = recalibrate(now, good(30), [], 0.05)
    assert (again.bad_scores, again.threshold_interval, again.escape_rate) == ((), None, None)


def test_a_threshold_set_by_hand_is_explained_beside_the_calibrations(before: Calibration) -> None:
    for calibration in (before, recalibrate(before, good(30), [], None)):
        text = calibration.explain(1.7)
        assert text.startswith("threshold 1.7 (set by hand): expects ")
        assert f"The calibration, not in force: threshold {calibration.threshold:.4g}" in text
    assert "30 further good images" in text


def test_scores_of_zero_give_a_threshold_above_zero(before: Calibration) -> None:
    for limit in (None, 0.3):
        assert recalibrate(before, [0.0] * 12, [], limit).threshold > 0


def test_what_cannot_be_scored_and_an_impossible_limit_are_refused(before: Calibration) -> None:
    with pytest.raises(ArgumentError, match="max_false_reject"):
        recalibrate(before, good(5), [], 1.5)
    with pytest.raises(ArgumentError, match="finite"):
        recalibrate(before, [1.0, math.nan], [2.0], None)
