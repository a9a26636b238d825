from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.enrollment.calibration import Calibration, calibrate, extended_calibration
from fewshot_ad.enrollment.prediction import POPULATION, Evidence, Population, Prediction, ScoredDefect, location
from fewshot_ad.enrollment.presets import enrollment_settings

DEFAULTS = enrollment_settings()


def evidence(
    scores: list[float],
    defects: list[float] | None = None,
    nuisances: list[float] | None = None,
    distinct: int | None = None,
    views_only: bool = False,
) -> Evidence:
    drawn = [ScoredDefect(0, "spot", 0.07, i, score) for i, score in enumerate(defects or [])]
    return Evidence(
        tuple(scores),
        tuple(1.4 * score for score in scores),
        0.6,
        tuple(scores if nuisances is None else nuisances),
        tuple(drawn),
        len(scores) if distinct is None else distinct,
        views_only,
    )


def test_whoever_says_that_smaller_defects_matter_gets_a_lower_threshold() -> None:
    large = evidence([1.0, 1.02, 0.99, 1.01], [2.4, 2.5, 2.6])
    small = [ScoredDefect(0, "spot", 0.035, i, 1.3) for i in range(3)]
    # Defects of both sizes: the largest count.
    both = dataclasses.replace(large, defects=(*small, *large.defects))
    assert calibrate(both, DEFAULTS).threshold == calibrate(large, DEFAULTS).threshold
    only_small = dataclasses.replace(large, defects=tuple(small))
    assert calibrate(only_small, DEFAULTS).threshold < calibrate(large, DEFAULTS).threshold


def test_location_is_the_mean_where_nothing_lies_far_out_and_close_to_the_others_where_one_does() -> None:
    assert location([0.0, 0.02, -0.02, 0.04]) == pytest.approx(0.01)
    assert location([0.0, 0.01, -0.01, 0.0, 5.0]) < 0.05


def test_prediction_by_hand() -> None:
    population = Population((0.1, 0.4), 0.2, 0.05, 10, (0.0, 1.0), 0.7)
    predicted = Prediction.of(evidence([1.0, 1.0, 1.0, 1.0]), population)
    assert predicted.mean == pytest.approx(0.1 + 0.4 / 4)
    assert predicted.freedom == 13
    assert predicted.spread == pytest.approx(0.05 * np.sqrt(10 / 13))
    assert predicted.spread_of_mean == pytest.approx(0.1)
    limit = predicted.limit(0.1)
    assert predicted.false_rejects(limit) == pytest.approx(0.1, abs=1e-4)
    assert predicted.bound(limit) > 0.1


def test_bound_covers_what_it_says() -> None:
    # Products drawn from the population itself: the true share above the limit is below the bound in 95% of them.
    population = dataclasses.replace(POPULATION, bias=(0.0, 0.0))
    rng, n, covered = np.random.default_rng(0), 6, []
    erfc = np.vectorize(__import__("math").erfc)
    for _ in range(400):
        spread = population.spread * np.sqrt(population.spread_weight / rng.chisquare(population.spread_weight))
        mean = rng.normal(0, population.spread_of_bias / np.sqrt(n))
        predicted = Prediction.of(evidence(list(np.exp(rng.normal(0, 1e-6, n)))), population)
        limit = predicted.limit(0.1)
        true = 0.5 * erfc((limit - mean) / spread / np.sqrt(2))
        covered.append(true <= predicted.bound(limit))
    assert np.mean(covered) > 0.9


def test_salient_defects_leave_room_above_the_good_and_faint_ones_do_not() -> None:
    scores = [1.0, 1.05, 0.95, 1.02]
    far, near = (calibrate(evidence(scores, [score] * 8), DEFAULTS) for score in (5.0, 1.1))
    assert far.threshold > 1.1 * near.threshold
    assert far.false_reject_rate < 0.03 < near.false_reject_rate
    # No threshold below the good limit, and none above what keeps the drawn defects.
    assert near.threshold > 1.02
    assert far.threshold < 5.0


def test_near_identical_images_count_as_one_and_nuisances_lift_their_scores() -> None:
    burst = [1.0, 1.001, 0.999, 1.0, 1.0, 1.0, 1.0, 1.0]
    believed = calibrate(evidence(burst, [5.0] * 8), DEFAULTS)
    doubted = calibrate(evidence(burst, [5.0] * 8, distinct=1), DEFAULTS)
    varied = calibrate(evidence(burst, [5.0] * 8, nuisances=[1.5] * 8, distinct=1), DEFAULTS)
    assert believed.threshold < doubted.threshold < varied.threshold
    assert varied.threshold > 1.5


@pytest.mark.parametrize("share", [0.2, 0.05, 0.01])
def test_the_operators_limit_on_false_rejects_is_kept(share: float) -> None:
    asked = enrollment_settings(max_false_reject=share)
    calibration = calibrate(evidence([1.0, 1.1, 0.9], [1.2] * 5), asked)
    # What is promised is never less than as many scores can show as the estimate is worth.
    assert calibration.false_reject_rate == pytest.approx(max(share, 1 / (POPULATION.spread_weight + 4)), rel=1e-2)
    assert calibration.false_reject_bound >= 0.05


@settings(max_examples=30, deadline=None)
@given(scores=st.lists(st.floats(0.5, 2), min_size=2, max_size=12), factor=st.floats(0.1, 10))
def test_threshold_scales_and_ignores_order(scores: list[float], factor: float) -> None:
    threshold = calibrate(evidence(scores, [3.0, 4.0]), DEFAULTS).threshold
    assert calibrate(evidence(scores[::-1], [4.0, 3.0]), DEFAULTS).threshold == pytest.approx(threshold, rel=1e-6)
    scaled = evidence([s * factor for s in scores], [3.0 * factor, 4.0 * factor])
    assert calibrate(scaled, DEFAULTS).threshold == pytest.approx(threshold * factor, rel=1e-3)


def test_a_threshold_set_by_hand_promises_no_less_than_can_be_shown() -> None:
    calibration = calibrate(evidence([1.0, 1.1, 0.9], [2.0] * 5), DEFAULTS)
    assert "expects 1.9% of good parts rejected" in calibration.explain(by_hand=50.0)


def test_scores_of_zero_give_a_tiny_threshold_and_no_error() -> None:
    assert 0.0 < calibrate(evidence([0.0, 0.0, 0.0]), DEFAULTS).threshold < 1e-11


def test_false_rejects_are_about_what_is_promised() -> None:
    rng = np.random.default_rng(0)
    rejected, promised = [], []
    for _ in range(300):
        logs = rng.normal(0, 0.08, 9) + np.r_[np.zeros(8), POPULATION.bias[0] + POPULATION.bias[1] / 8]
        calibration = calibrate(evidence(list(np.exp(logs[:8])), [1.3] * 5), DEFAULTS)
        rejected.append(np.exp(logs[8]) > calibration.threshold)
        promised.append(calibration.false_reject_rate)
    # The promise allows for products whose held-out scores mislead, of which there are none here.
    assert np.mean(rejected) < np.mean(promised) + 0.02


def test_calibration_survives_json_and_explains_itself() -> None:
    calibration = calibrate(evidence([1.0, 1.2, 1.1], [2.0, 3.0]), DEFAULTS)
    fields = json.loads(json.dumps(dataclasses.asdict(calibration)))
    assert Calibration.from_dict(fields) == calibration
    assert calibration.status == "provisional"
    text = calibration.explain()
    rates = f"{calibration.false_reject_rate:.1%}", f"{calibration.false_reject_bound:.1%}"
    for part in ("(provisional)", "each of 3 support images", "scores 1 to 1.2", *rates):
        assert part in text
    single = calibrate(evidence([1.0, 1.2], distinct=1, views_only=True), DEFAULTS)
    assert "only one image" in single.explain()
    assert single.n == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        calibration.threshold = 1.0  # type: ignore[misc]


def test_more_good_images_narrow_the_promise() -> None:
    before = calibrate(evidence([1.0, 1.1, 0.9], [1.6] * 5), DEFAULTS)
    after = extended_calibration(before, [1.0, 1.05, 0.95, 1.0], [1.4, 1.4, 1.4, 1.4], 4, DEFAULTS)
    assert (after.n, len(after.scores), len(after.map_peaks)) == (7, 7, 7)
    assert after.false_reject_bound < before.false_reject_bound
    burst = extended_calibration(before, [1.0, 1.0, 1.0], [1.4, 1.4, 1.4], 1, DEFAULTS)
    assert (burst.n, burst.distinct) == (6, 4)
    measured = dataclasses.replace(before, further_scores=(1.0,))
    assert extended_calibration(measured, [1.0], [1.4], 1, DEFAULTS) is measured


def test_a_flat_map_has_a_scale_of_some_width() -> None:
    flat = dataclasses.replace(evidence([1.0, 1.0]), map_peaks=(0.1, 0.1), median_good=2.0)
    scale = calibrate(flat, DEFAULTS).map_scale
    assert scale.median_good == 2.0
    assert scale.threshold == pytest.approx(2.0 * 1.05 + 1e-6, rel=1e-12)


def test_the_maps_limit_lies_as_far_above_its_peaks_as_the_scores_does() -> None:
    calibration = calibrate(evidence([1.0, 1.3, 1.1, 1.2], [2.0] * 3), DEFAULTS)
    assert calibration.map_scale.threshold == pytest.approx(1.4 * calibration.threshold)
    assert calibration.map_scale.median_good == 0.6


def test_the_maps_scale_moves_with_the_threshold() -> None:
    calibration = calibrate(evidence([1.0, 1.2, 1.1]), DEFAULTS)
    same = calibration.map_scale_at(calibration.threshold)
    assert same.threshold == pytest.approx(calibration.map_scale.threshold)
    doubled = calibration.map_scale_at(2 * calibration.threshold)
    assert doubled.median_good == 0.6
    assert doubled.threshold - 0.6 == pytest.approx(2 * (calibration.map_scale.threshold - 0.6))


@pytest.mark.parametrize("threshold", [1e-30, 1e-12, 1e30])
def test_the_maps_scale_is_of_some_width_for_any_threshold(threshold: float) -> None:
    scale = calibrate(evidence([1.0, 1.2, 1.1]), DEFAULTS).map_scale_at(threshold)
    assert 0 < np.float32(scale.threshold - scale.median_good) < np.inf


def test_a_calibration_of_an_earlier_version_has_no_peaks_and_no_bound() -> None:
    fields = dataclasses.asdict(calibrate(evidence([1.0, 1.2]), DEFAULTS))
    for name in ("map_peaks", "false_reject_bound", "distinct", "nuisances", "defects"):
        del fields[name]
    former = Calibration.from_dict(fields)
    assert (former.map_peaks, former.defects, former.false_reject_bound) == ((), (), None)
    assert "95%" not in former.explain()
