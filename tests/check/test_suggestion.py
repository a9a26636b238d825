from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad.check.suggestion import suggest, why_none
from fewshot_ad.metrics import threshold_of_labeled


def test_with_bad_images_it_is_the_best_threshold_of_both() -> None:
    good, bad = [1.0, 1.2, 2.5], [2.0, 4.0, 5.0]
    suggestion = suggest(good, bad)
    best = threshold_of_labeled(good, bad)
    assert suggestion is not None
    assert (suggestion.threshold, suggestion.interval) == (best.threshold, best.interval)
    assert suggestion.held_out_escapes == best.held_out_escapes
    assert "Chosen each time without the images it then judges" in suggestion.explain()


def test_a_single_bad_image_allows_no_fairer_judgment() -> None:
    suggestion = suggest([1.0, 1.2], [2.0])
    assert suggestion is not None
    assert "nothing fairer can be said" in suggestion.explain()


@pytest.mark.parametrize(("n", "promise", "rejected"), [(9, 0.1, 0), (18, 0.1, 0), (19, 0.05, 0), (40, 0.05, 1)])
def test_good_images_alone_promise_what_their_number_allows(n: int, promise: float, rejected: int) -> None:
    suggestion = suggest([1 + i / 100 for i in range(n)], [])
    assert suggestion is not None
    assert suggestion.max_false_reject == promise
    assert (suggestion.false_rejects.count, suggestion.escapes, suggestion.interval) == (rejected, None, None)
    assert f"at most {promise:.0%} on average" in suggestion.explain()


def test_the_promise_is_kept() -> None:
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(300):
        suggestion = suggest(rng.lognormal(size=19).tolist(), [])
        assert suggestion is not None
        rates.append((rng.lognormal(size=300) > suggestion.threshold).mean())
    assert np.mean(rates) == pytest.approx(0.05, abs=0.01)
    assert suggestion.upper_false_reject is not None
    assert np.mean(np.array(rates) > suggestion.upper_false_reject) == pytest.approx(0.05, abs=0.03)


def test_too_few_good_images_are_told_how_many_it_takes() -> None:
    assert suggest([1.0] * 8, []) is None
    assert "8 good images are too few" in why_none(8)
    assert "9 for 10% and 19 for 5%" in why_none(8)
