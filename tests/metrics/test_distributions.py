from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad.metrics.distributions import student_t_above, student_t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 30, 200])
@pytest.mark.parametrize("probability", [0.6, 2 / 3, 0.8, 0.9, 0.95, 0.99])
def test_t_quantile_is_scipys(freedom: int, probability: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.t.ppf(probability, freedom)
    assert student_t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("freedom", [1, 4, 27.0])
def test_probability_above_is_scipys(freedom: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.linspace(-6, 6, 25)
    np.testing.assert_allclose(student_t_above(values, freedom), stats.t.sf(values, freedom), atol=1e-6)
