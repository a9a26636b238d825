from __future__ import annotations

import pytest

from fewshot_ad.metrics.agreement import decision_flips, relative_difference


def test_the_largest_difference_counts_in_either_direction() -> None:
    assert relative_difference([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.5], [3.25, 4.0]], 2.0) == pytest.approx(0.25)
    assert relative_difference([3.0], [1.0], 4.0) == pytest.approx(0.5)
    assert relative_difference(1.0, 1.0, 4.0) == 0


def test_decision_flips_are_counted_and_lengths_must_agree() -> None:
    assert decision_flips([True, False, True, True, False], [True, True, False, True, False]) == 2
    with pytest.raises(ValueError, match="longer"):
        decision_flips([True], [True, False])
