from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.errors import ArgumentError
from fewshot_ad.metrics import Rate, binomial_interval, conformal_threshold, false_reject_law, needed_for
from fewshot_ad.metrics.rates import beta_quantile


@settings(max_examples=100, deadline=None)
@given(total=st.integers(1, 3000), share=st.floats(0, 1), level=st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_intervals_are_those_of_scipy(total: int, share: float, level: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    count = round(share * total)
    expected = stats.binomtest(count, total).proportion_ci(level, method="exact")
    assert binomial_interval(count, total, level) == pytest.approx((expected.low, expected.high), rel=1e-8, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(a=st.integers(1, 2000), b=st.integers(1, 2000), probability=st.floats(0.001, 0.999))
def test_beta_quantiles_are_those_of_scipy(a: int, b: int, probability: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert beta_quantile(probability, a, b) == pytest.approx(stats.beta.ppf(probability, a, b), rel=1e-7)


def test_no_error_on_few_images_says_little() -> None:
    # 0 of n: the upper end is the rate at which n good images in a row have probability 2.5%.
    assert binomial_interval(0, 20) == pytest.approx((0, 1 - 0.025 ** (1 / 20)))
    assert binomial_interval(20, 20) == pytest.approx((0.025 ** (1 / 20), 1))
    assert str(Rate(0, 20)) == "0.0% (0 of 20; 95% interval 0.0% to 16.8%)"
    assert Rate(1, 4).as_dict().keys() == {"count", "total", "rate", "interval"}


@pytest.mark.parametrize("arguments", [(1, 0), (-1, 5), (6, 5), (0.5, 5), (1, 5, 0), (1, 5, 1), (1, 5, 1.5)])
def test_counts_out_of_range_are_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ArgumentError, match="expected"):
        binomial_interval(*arguments)  # type: ignore[arg-type]


def test_the_conformal_threshold_is_the_score_of_that_rank() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 20.0))  # 1..19
    assert conformal_threshold(scores, 0.05) == 19
    assert conformal_threshold(scores, 0.1) == 18
    assert conformal_threshold(scores, 0.5) == 10
    assert conformal_threshold(scores, 0.04) is None
    assert conformal_threshold(np.arange(1.0, 100.0), 0.29) == 71  # 100 * 0.29 is a little below 29


@given(alpha=st.floats(0.0005, 0.999))
def test_as_many_images_are_needed_as_make_a_promise_possible(alpha: float) -> None:
    n = needed_for(alpha)
    assert conformal_threshold(range(n), alpha) is not None
    assert n == 1 or conformal_threshold(range(n - 1), alpha) is None


def test_needed_numbers() -> None:
    assert [needed_for(alpha) for alpha in (0.5, 0.2, 0.1, 0.05, 0.01)] == [1, 4, 9, 19, 99]


@pytest.mark.parametrize("n", [4, 9, 30])
def test_the_law_is_what_draws_show(n: int) -> None:
    """Scores that are uniform in 0..1 have a false reject rate of 1 - threshold."""
    rng = np.random.default_rng(n)
    rank = n - n // 10
    rates = 1 - np.sort(rng.random((20_000, n)), axis=1)[:, rank - 1]
    law = false_reject_law(rank, n)
    assert law.expected == pytest.approx(rates.mean(), abs=0.005)
    assert law.upper == pytest.approx(np.quantile(rates, 0.95), abs=0.01)


def test_the_largest_of_n_scores() -> None:
    law = false_reject_law(9, 9)
    assert law.expected == pytest.approx(0.1)
    assert law.upper == pytest.approx(1 - 0.05 ** (1 / 9))


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")], [float("inf")]])
def test_scores_that_are_none_are_refused(scores: list[float]) -> None:
    with pytest.raises(ArgumentError, match="Leave out"):
        conformal_threshold(scores, 0.1)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan"), "0.1", True])
def test_shares_out_of_range_are_refused(share: object) -> None:
    with pytest.raises(ArgumentError, match="max_false_reject"):
        needed_for(share)  # type: ignore[arg-type]


def test_ranks_out_of_range_are_refused() -> None:
    for rank, total in ((0, 5), (6, 5), (1, 0)):
        with pytest.raises(ArgumentError, match="expected"):
            false_reject_law(rank, total)
