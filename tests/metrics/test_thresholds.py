from __future__ import annotations

import math

import numpy as np
import pytest

from fewshot_ad.errors import ArgumentError
from fewshot_ad.metrics import LabeledThreshold, Rate, threshold_of_labeled, thresholds


def scores(seed: int, n_good: int, n_bad: int, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(0, 0.3, n_good)), np.exp(rng.normal(shift, 0.3, n_bad))


def test_a_clear_gap_is_cut_in_the_middle_of_its_logarithm() -> None:
    found = threshold_of_labeled([0.5, 1.0], [4.0, 9.0])
    assert found.threshold == pytest.approx(2.0)
    assert (found.false_rejects, found.escapes) == (Rate(0, 2), Rate(0, 2))


def test_of_equal_costs_the_widest_gap_is_taken() -> None:
    # Either the good image at 3.0 is rejected or the first bad one is passed.
    assert threshold_of_labeled([1.0, 3.0], [1.1, 6.0]).threshold == pytest.approx(np.sqrt(3.0 * 6.0))
    assert threshold_of_labeled([1.0, 3.0], [2.0, 3.3]).threshold == pytest.approx(np.sqrt(1.0 * 2.0))


@pytest.mark.parametrize("cost_ratio", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_costs_less(seed: int, cost_ratio: float) -> None:
    good, bad = scores(seed, 23, 41, 0.3)
    found = threshold_of_labeled(good, bad, cost_ratio)
    lowest = min((good > t).mean() + cost_ratio * (bad <= t).mean() for t in [0.0, *good, *bad])
    assert found.false_rejects.rate + cost_ratio * found.escapes.rate == pytest.approx(lowest)
    assert found.interval[0] <= found.threshold <= found.interval[1]


def test_costly_escapes_lower_the_threshold() -> None:
    good, bad = scores(1, 50, 50, 0.5)
    thresholds = [threshold_of_labeled(good, bad, ratio).threshold for ratio in (0.1, 1.0, 10.0)]
    assert thresholds == sorted(thresholds, reverse=True)


def true_error(threshold: float, shift: float) -> float:
    """False reject rate plus escape rate of a threshold, by the normal distributions that `scores` draws from."""
    above, below = np.log(threshold) / 0.3, (np.log(threshold) - shift) / 0.3
    return (math.erfc(above / math.sqrt(2)) + math.erfc(-below / math.sqrt(2))) / 2


def test_what_is_held_out_shows_the_true_error_and_the_interval_is_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "REPEATS", 100)
    errors, covered = [], []
    for seed in range(200):
        found = threshold_of_labeled(*scores(seed, 5, 8, 0.6))
        assert found.held_out_false_rejects is not None
        assert found.held_out_escapes is not None
        held_out = found.held_out_false_rejects.rate + found.held_out_escapes.rate
        errors.append((true_error(found.threshold, 0.6), found.false_rejects.rate + found.escapes.rate, held_out))
        covered.append(found.interval[0] <= np.exp(0.3) <= found.interval[1])
    true, flattering, held_out = np.mean(errors, axis=0)
    assert held_out == pytest.approx(true, abs=0.05)
    assert flattering < true / 2
    assert 0.65 < np.mean(covered) < 0.92


def test_a_single_bad_image_cannot_be_held_out() -> None:
    found = threshold_of_labeled([1.0, 1.1], [2.0])
    assert (found.held_out_false_rejects, found.held_out_escapes) == (None, None)


def test_the_same_scores_give_the_same_answer_whatever_their_unit() -> None:
    good, bad = scores(3, 60, 70)
    found, scaled = threshold_of_labeled(good, bad), threshold_of_labeled(7 * good, 7 * bad)
    assert found == threshold_of_labeled(list(good), list(bad))
    assert scaled.threshold == pytest.approx(7 * found.threshold)
    assert scaled.interval == pytest.approx(tuple(7 * end for end in found.interval))
    assert found.held_out_escapes == scaled.held_out_escapes


def test_scores_without_any_order_still_give_a_threshold() -> None:
    for good, bad in (([2.0, 3.0], [1.0]), ([1.0], [1.0]), ([0.0], [0.0])):
        found = threshold_of_labeled(good, bad)
        assert isinstance(found, LabeledThreshold)
        assert np.isfinite(found.threshold)
        assert found.threshold > 0


@pytest.mark.parametrize(
    ("good", "bad", "ratio"), [([], [1], 1), ([1], [], 1), ([float("nan")], [1], 1), ([1], [2], 0), ([1], [2], -1)]
)
def test_what_makes_no_sense_is_refused(good: list[float], bad: list[float], ratio: float) -> None:
    with pytest.raises(ArgumentError, match="expected"):
        threshold_of_labeled(good, bad, ratio)


def test_a_limit_on_false_rejects_lifts_the_threshold() -> None:
    good, bad = [float(score) for score in range(1, 21)], [float(score) for score in range(15, 35)]
    free = threshold_of_labeled(good, bad)
    held = threshold_of_labeled(good, bad, max_false_reject=0.05)
    assert free.threshold < 16
    # The 20th of 20 scores promises 5%; among the thresholds above it, the lowest costs least.
    assert 20 <= held.threshold <= 21
    assert held.false_rejects.count == 0
    # Too few for 1%: no lower than the highest good score.
    assert threshold_of_labeled(good, bad, max_false_reject=0.01).threshold >= 20
    with pytest.raises(ArgumentError, match="max_false_reject"):
        threshold_of_labeled(good, bad, max_false_reject=1.0)
