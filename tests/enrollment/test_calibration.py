from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.enrollment.calibration import Calibration, calibrate, prediction_limit, student_t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 30, 200])
@pytest.mark.parametrize("probability", [0.6, 2 / 3, 0.8, 0.9, 0.95, 0.99])
def test_t_quantile_is_scipys(freedom: int, probability: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.t.ppf(probability, freedom)
    assert student_t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-4)


def test_prediction_limit_by_hand() -> None:
    # log scores 0 and 1: mean 0.5, sd sqrt(0.5), t(1 - 1/3, 1) = tan(pi/6): log limit 0.5 + 0.5774 * 0.866 = 1.0.
    assert prediction_limit([1.0, np.e], 1 / 3) == pytest.approx(np.e, rel=1e-4)
    # A spread set goes past its largest score.
    assert prediction_limit([1.0, 1.0, 1.0, 2.0], 0.01) > 2.0


@pytest.mark.parametrize("n", [2, 3, 5, 8, 40])
def test_prediction_limit_is_that_of_a_new_observation_from_the_t_distribution(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    scores = np.random.default_rng(n).lognormal(1.0, 0.5, n)
    alpha = 1 / (20 * n)  # far out, so that the largest score is no floor
    logs = np.log(scores)
    expected = np.exp(logs.mean() + stats.t.ppf(1 - alpha, n - 1) * logs.std(ddof=1) * np.sqrt(1 + 1 / n))
    assert expected > scores.max()
    assert prediction_limit(scores, alpha) == pytest.approx(expected, rel=2e-4)


def test_one_score_is_its_own_limit_and_does_not_reject_itself() -> None:
    assert 2.0 < prediction_limit([2.0], 0.5) <= 2.0 * (1 + 1.1e-6)
    assert 0.0 < prediction_limit([0.0, 0.0, 0.0], 0.25) < 1e-11


@settings(max_examples=60, deadline=None)
@given(scores=st.lists(st.floats(0.01, 100), min_size=1, max_size=12), factor=st.floats(0.1, 10))
def test_limit_is_floored_scales_and_ignores_order(scores: list[float], factor: float) -> None:
    limit = prediction_limit(scores, 0.1)
    assert limit > max(scores)
    assert prediction_limit(scores[::-1], 0.1) == pytest.approx(limit, rel=1e-9)
    assert prediction_limit([s * factor for s in scores], 0.1) == pytest.approx(limit * factor, rel=1e-6)


def test_false_rejects_are_about_what_is_promised() -> None:
    rng = np.random.default_rng(0)
    rejected = []
    for _ in range(2000):
        scores = rng.lognormal(0, 0.2, 9)
        rejected.append(scores[8] > prediction_limit(scores[:8], 1 / 9))
    assert 0.04 < np.mean(rejected) < 1 / 9 + 0.02


def test_calibration_survives_json_and_explains_itself() -> None:
    calibration = calibrate([1.0, 1.2, 1.1], [1.5, 1.4, 1.6], 0.7, "leave-one-image-out", 3)
    fields = json.loads(json.dumps(dataclasses.asdict(calibration)))
    assert Calibration.from_dict(fields) == calibration
    assert calibration.false_reject_rate == 0.25
    assert calibration.status == "provisional"
    assert "25%" in calibration.explain()
    single = calibrate([1.0, 1.2], [1.5, 1.4], 0.7, "leave-one-view-out", 1)
    assert "only one image" in single.explain()
    assert single.false_reject_rate == 0.5


def test_calibration_by_hand() -> None:
    scores, peaks = [1.0, 1.3, 1.1, 1.2], [1.4, 1.7, 1.5, 1.6]
    calibration = calibrate(scores, peaks, 0.6, "leave-one-image-out", 4)
    assert calibration.false_reject_rate == pytest.approx(0.2)
    assert calibration.threshold == prediction_limit(scores, 0.2)
    assert calibration.map_scale.threshold == prediction_limit(peaks, 0.2)
    assert calibration.map_scale.median_good == 0.6
    assert (calibration.scores, calibration.map_peaks) == (tuple(scores), tuple(peaks))
    with pytest.raises(dataclasses.FrozenInstanceError):
        calibration.threshold = 1.0  # type: ignore[misc]


def test_a_flat_map_has_a_scale_of_some_width() -> None:
    scale = calibrate([1.0, 1.0], [0.5, 0.5], 2.0, "leave-one-image-out", 2).map_scale
    assert scale.median_good == 2.0
    assert scale.threshold == pytest.approx(2.0 * 1.05 + 1e-6, rel=1e-12)


def test_the_maps_scale_moves_with_the_threshold() -> None:
    calibration = calibrate([1.0, 1.2, 1.1], [1.5, 1.4, 1.6], 0.7, "leave-one-image-out", 3)
    same = calibration.map_scale_at(calibration.threshold)
    assert same.threshold == pytest.approx(calibration.map_scale.threshold)
    doubled = calibration.map_scale_at(2 * calibration.threshold)
    assert doubled.median_good == 0.7
    assert doubled.threshold - 0.7 == pytest.approx(2 * (calibration.map_scale.threshold - 0.7))


@pytest.mark.parametrize("threshold", [1e-30, 1e-12, 1e30])
def test_the_maps_scale_is_of_some_width_for_any_threshold(threshold: float) -> None:
    scale = calibrate([1.0, 1.2, 1.1], [1.5, 1.4, 1.6], 0.7, "leave-one-image-out", 3).map_scale_at(threshold)
    assert 0 < np.float32(scale.threshold - scale.median_good) < np.inf


def test_a_calibration_of_an_earlier_version_has_no_peaks() -> None:
    fields = dataclasses.asdict(calibrate([1.0, 1.2], [1.5, 1.4], 0.7, "leave-one-image-out", 2))
    del fields["map_peaks"]
    assert Calibration.from_dict(fields).map_peaks == ()


def test_the_explanation_names_the_numbers() -> None:
    text = calibrate([1.25, 1.5, 1.375], [1.5, 1.4, 1.6], 0.7, "leave-one-image-out", 3).explain()
    assert text.startswith("threshold 1.")
    for part in ("(provisional)", "each of 3 support images", "scores 1.25 to 1.5", "n = 3", "about 25%"):
        assert part in text
