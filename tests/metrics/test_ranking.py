from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.errors import BenchmarkError
from fewshot_ad.metrics.ranking import (
    at_threshold,
    aupr,
    auroc,
    bootstrap,
    escape_rate,
    f1_max,
    false_reject_rate,
    forgetting,
    forgetting_by_task,
    iou,
    mcc_max,
)

RANKING = (auroc, aupr, mcc_max, lambda labels, scores: f1_max(labels, scores).f1)


def _labeled(seed: int, digits: int = 3, size: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(size) < 0.4
    labels[:2] = True, False
    return labels, np.round(rng.normal(size=size) + labels, digits)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), digits=st.integers(0, 3))
def test_ranking_figures_are_those_of_scikit_learn(seed: int, digits: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, scores = _labeled(seed, digits)
    assert auroc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert aupr(labels, scores) == pytest.approx(metrics.average_precision_score(labels, scores))
    precision, recall, thresholds = metrics.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = f1_max(labels, scores)
    assert best.f1 == pytest.approx(f1.max())
    assert best.threshold in thresholds[np.isclose(f1[:-1], f1.max())]
    cuts = [metrics.matthews_corrcoef(labels, scores >= cut) for cut in np.unique(scores)]
    assert mcc_max(labels, scores) == pytest.approx(max(cuts))
    rejected = scores >= best.threshold
    assert at_threshold(labels, rejected).f1 == pytest.approx(best.f1)
    for decisions in (rejected, scores > np.median(scores), np.zeros(len(labels), bool)):
        assert at_threshold(labels, decisions).mcc == pytest.approx(metrics.matthews_corrcoef(labels, decisions))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), digits=st.integers(0, 2), order=st.randoms(use_true_random=False))
def test_ranking_figures_depend_on_the_order_of_scores_only(seed: int, digits: int, order: object) -> None:
    labels, scores = _labeled(seed, digits)
    shuffled = list(range(len(labels)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    for figure in RANKING:
        expected = figure(labels, scores)
        assert figure(labels, np.exp(scores) + 7) == pytest.approx(expected)
        assert figure(labels[shuffled], scores[shuffled]) == pytest.approx(expected)
        assert 0 <= expected <= 1


def test_ranking_figures_by_hand() -> None:
    labels, scores = [1, 0, 1, 0, 0], [5.0, 4.0, 3.0, 3.0, 1.0]
    # Of six pairs, the first defective one wins three; the second loses one, ties with one and wins one.
    assert auroc(labels, scores) == pytest.approx((3 + 1.5) / 6)
    # Half of the recall at precision 1, the other half at 2 of 4.
    assert aupr(labels, scores) == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert f1_max(labels, scores) == (pytest.approx(2 / 3), 5.0)
    # A defective image may score lowest, or be the only one.
    assert auroc([1, 0, 1], [3.0, 2.0, 1.0]) == pytest.approx(0.5)
    assert auroc([1, 0], [1.0, 1.0]) == pytest.approx(0.5)
    assert f1_max([0, 1, 0], [3.0, 2.0, 1.0]) == (pytest.approx(2 / 3), 2.0)
    # Rejecting the first two: 1 hit, 1 false reject, 1 good passed.
    assert mcc_max([0, 1, 0], [3.0, 2.0, 1.0]) == pytest.approx(0.5)
    assert mcc_max([1, 0], [1.0, 2.0]) == 0


def test_ranking_figures_where_a_class_is_absent() -> None:
    assert np.isnan(auroc([1, 1], [0.1, 0.2]))
    assert np.isnan(auroc([0, 0], [0.1, 0.2]))
    assert aupr([1, 1], [0.1, 0.2]) == 1
    assert np.isnan(aupr([0, 0], [0.1, 0.2]))
    assert np.isnan(f1_max([0, 0], [0.1, 0.2])).all()
    assert np.isnan(mcc_max([0, 0], [0.1, 0.2]))
    assert np.isnan(mcc_max([1, 1], [0.1, 0.2]))


@pytest.mark.parametrize(
    ("labels", "scores"), [([1, 0], [1.0, np.nan]), ([1, 0], [1.0]), ([1, 0], [1.0, 2.0, 3.0]), ([], [])]
)
def test_scores_that_cannot_be_ranked_are_refused(labels: list[int], scores: list[float]) -> None:
    with pytest.raises(BenchmarkError, match="as many scores as labels"):
        auroc(labels, scores)


def test_figures_at_a_threshold_by_hand() -> None:
    figures = at_threshold([0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0])
    assert figures.precision == pytest.approx(2 / 3)
    assert figures.recall == pytest.approx(2 / 3)
    assert figures.f1 == pytest.approx(2 / 3)
    assert figures.false_reject_rate == 0.25
    assert figures.escape_rate == pytest.approx(1 / 3)
    assert figures.balanced_accuracy == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert figures.mcc == pytest.approx((2 * 3 - 1 * 1) / np.sqrt(3 * 3 * 4 * 4))


def test_figures_at_a_threshold_that_are_undefined() -> None:
    figures = at_threshold([0, 0], [0, 0])
    assert figures.false_reject_rate == 0
    assert np.isnan([figures.precision, figures.recall, figures.f1, figures.balanced_accuracy, figures.mcc]).all()


@pytest.mark.parametrize("figure", [at_threshold, false_reject_rate, escape_rate])
def test_as_many_decisions_as_labels(figure: Callable[..., object]) -> None:
    for rejected in ([True], [True, False], []):
        with pytest.raises(BenchmarkError, match="as many decisions or scores as labels"):
            figure([1, 0, 1], rejected)


def test_iou_by_hand() -> None:
    a, b = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 0]], bool)
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(a, a) == 1
    assert iou(a, ~a) == 0
    assert np.isnan(iou(a & ~a, a & ~a))
    for other in (b[:, :3], np.vstack([b, b]), b.T):
        with pytest.raises(BenchmarkError, match="shape"):
            iou(a, other)


def test_forgetting_by_hand() -> None:
    steps = [[0.9], [0.8, 0.7], [0.85, 0.5, 0.6]]
    assert forgetting_by_task(steps) == pytest.approx([0.05, 0.2])
    assert forgetting(steps) == pytest.approx(0.125)
    # The same with what was not measured filled in, and with a gain.
    nan = float("nan")
    assert forgetting([[0.9, nan], [1.0, 0.4]]) == pytest.approx(-0.1)
    assert np.isnan(forgetting([[nan, nan], [1.0, 0.4]]))
    assert forgetting_by_task([[0.9]]) == []
    assert np.isnan(forgetting([[0.9]]))
    # Rows hold the tasks up to their step only, in any number of steps.
    assert forgetting_by_task([[0.9], [0.8, 0.7], [0.8, 0.7, 0.6], [0.6, 0.6, 0.6, 0.5]]) == pytest.approx(
        [0.3, 0.1, 0.0]
    )


@pytest.mark.parametrize("last", [[0.8, 0.7], [0.8, 0.7, 0.6, 0.5]])
def test_forgetting_needs_one_task_per_step(last: list[float]) -> None:
    with pytest.raises(BenchmarkError, match=rf"expected a last row of 3 tasks, one per step, got {len(last)}\."):
        forgetting([[0.9], [0.8, 0.7, 0.6], last])


@pytest.mark.parametrize("figure", [auroc, aupr, f1_max, mcc_max, false_reject_rate, escape_rate])
def test_bootstrap_at_once_is_bootstrap_one_by_one(figure: Callable[..., Any]) -> None:
    labels, scores = _labeled(2, digits=1)
    values = scores > 0.3 if figure in (false_reject_rate, escape_rate) else scores

    def single(truth: np.ndarray, drawn: np.ndarray) -> float:
        value = figure(truth, drawn)
        return value.f1 if figure is f1_max else value

    at_once = bootstrap(figure, labels, values, repeats=2000, seed=1)
    one_by_one = bootstrap(single, labels, values, repeats=2000, seed=2)
    # A rate of the 25 defective ones has steps of 0.04.
    assert at_once == pytest.approx(one_by_one, abs=0.041 if values.dtype == bool else 0.02)
    assert at_once[0] < single(labels, values) < at_once[1]


def test_bootstrap_of_decisions_is_binomial() -> None:
    stats = pytest.importorskip("scipy.stats")
    labels, rejected = np.repeat([0, 1], 40), np.tile([1, 0, 0, 0, 0], 16)
    law = stats.binom(40, 8 / 40).ppf([0.025, 0.975]) / 40
    assert bootstrap(false_reject_rate, labels, rejected, repeats=5000) == pytest.approx(law, abs=1.01 / 40)
    assert bootstrap(escape_rate, labels, rejected, repeats=5000) == pytest.approx(1 - law[::-1], abs=1.01 / 40)
    # Without an error on record, none is drawn.
    assert bootstrap(false_reject_rate, labels, np.zeros(80), repeats=50) == (0, 0)


def test_every_image_is_drawn_as_often_as_any_other() -> None:
    # Of two defective images one escapes: both draws hit it, or one, or none, with probability 1/4, 1/2, 1/4.
    for rejected in ([1, 0, 0], [0, 1, 0]):
        assert bootstrap(escape_rate, [1, 1, 0], rejected, repeats=4000, level=0.6) == (0, 1)
        assert bootstrap(escape_rate, [1, 1, 0], rejected, repeats=4000, level=0.4) == (0.5, 0.5)


def test_a_single_draw_is_an_interval_of_no_width() -> None:
    labels, scores = _labeled(5)
    low, high = bootstrap(auroc, labels, scores, repeats=1)
    assert low == high


def test_bootstrap_draws_a_thousand_times_at_95_percent_by_default() -> None:
    labels, scores = _labeled(6)
    for figure in (auroc, lambda truth, values: values[truth].mean()):
        explicit = bootstrap(figure, labels, scores, repeats=1000, level=0.95, seed=0)
        assert bootstrap(figure, labels, scores) == explicit


def test_bootstrap_of_auroc_is_as_wide_as_theory_says() -> None:
    labels, scores = _labeled(3, digits=6, size=300)
    low, high = bootstrap(auroc, labels, scores, repeats=4000)
    # Standard error of DeLong et al. 1988, from the shares of the other class that each one beats.
    wins = scores[labels][:, None] > scores[~labels]
    error = np.sqrt(wins.mean(1).var(ddof=1) / wins.shape[0] + wins.mean(0).var(ddof=1) / wins.shape[1])
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_bootstrap_is_repeatable_stratified_and_takes_any_metric() -> None:
    labels, scores = _labeled(4)
    assert bootstrap(auroc, labels, scores, seed=3) == bootstrap(auroc, labels, scores, seed=3)
    assert bootstrap(auroc, labels, scores, seed=3) != bootstrap(auroc, labels, scores, seed=4)
    share = labels.mean()
    assert bootstrap(lambda truth, _: truth.mean(), labels, scores, repeats=20) == (share, share)
    low, high = bootstrap(
        lambda labels, rejects: at_threshold(labels, rejects).recall, labels, scores > 0.5, repeats=200
    )
    assert low < at_threshold(labels, scores > 0.5).recall < high
    narrow = bootstrap(auroc, labels, scores, level=0.5)
    wide = bootstrap(auroc, labels, scores, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_bootstrap_of_what_is_undefined_or_makes_no_sense() -> None:
    assert np.isnan(bootstrap(auroc, [1, 1], [0.1, 0.2], repeats=10)).all()
    with pytest.raises(BenchmarkError, match="as many"):
        bootstrap(lambda truth, _: truth.mean(), [1, 0], [0.1, 0.2, 0.3])
    for level in (0, 1, -0.5, 95):
        with pytest.raises(BenchmarkError, match="level between 0 and 1"):
            bootstrap(auroc, [1, 0], [0.1, 0.2], level=level)
    with pytest.raises(BenchmarkError, match="one draw at least"):
        bootstrap(auroc, [1, 0], [0.1, 0.2], repeats=0)
