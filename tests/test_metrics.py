from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.errors import BenchmarkError
from fewshot_ad.metrics import (
    SaturatedRegion,
    area_up_to,
    at_threshold,
    au_pro,
    au_spro,
    aupr,
    auroc,
    bootstrap,
    f1_max,
    forgetting,
    forgetting_by_task,
    iou,
    region_weights,
    spro,
)

RANKING = (auroc, aupr, lambda labels, scores: f1_max(labels, scores).f1)


def _labelled(seed: int, digits: int = 3, size: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(size) < 0.4
    labels[:2] = True, False
    return labels, np.round(rng.normal(size=size) + labels, digits)


def _masked(seed: int, side: int = 40, photographs: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Maps that see half of the defects, and masks with some regions; the last photograph is good."""
    rng = np.random.default_rng(seed)
    masks = [np.zeros((side, side), bool) for _ in range(photographs)]
    for mask in masks[:-1]:
        for _ in range(3):
            y, x = rng.integers(0, side - 8, 2)
            mask[y : y + rng.integers(1, 8), x : x + rng.integers(1, 8)] = True
    return [rng.normal(size=mask.shape) + mask for mask in masks], masks


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), digits=st.integers(0, 3))
def test_ranking_figures_are_scikit_learns(seed: int, digits: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, scores = _labelled(seed, digits)
    assert auroc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert aupr(labels, scores) == pytest.approx(metrics.average_precision_score(labels, scores))
    precision, recall, thresholds = metrics.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = f1_max(labels, scores)
    assert best.f1 == pytest.approx(f1.max())
    assert best.threshold in thresholds[np.isclose(f1[:-1], f1.max())]
    assert at_threshold(labels, scores >= best.threshold).f1 == pytest.approx(best.f1)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), digits=st.integers(0, 2), order=st.randoms(use_true_random=False))
def test_ranking_figures_know_the_order_of_scores_only(seed: int, digits: int, order: object) -> None:
    labels, scores = _labelled(seed, digits)
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


def test_ranking_figures_where_a_class_is_absent() -> None:
    assert np.isnan(auroc([1, 1], [0.1, 0.2]))
    assert np.isnan(auroc([0, 0], [0.1, 0.2]))
    assert aupr([1, 1], [0.1, 0.2]) == 1
    assert np.isnan(aupr([0, 0], [0.1, 0.2]))
    assert np.isnan(f1_max([0, 0], [0.1, 0.2])).all()


@pytest.mark.parametrize(("labels", "scores"), [([1, 0], [1.0, np.nan]), ([1, 0], [1.0]), ([], [])])
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


def test_figures_at_a_threshold_that_are_undefined() -> None:
    figures = at_threshold([0, 0], [0, 0])
    assert figures.false_reject_rate == 0
    assert np.isnan([figures.precision, figures.recall, figures.f1, figures.balanced_accuracy]).all()


def test_iou_by_hand() -> None:
    a, b = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 0]], bool)
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(a, a) == 1
    assert iou(a, ~a) == 0
    assert np.isnan(iou(a & ~a, a & ~a))
    with pytest.raises(BenchmarkError, match="shape"):
        iou(a, b.T)


def test_region_weights_join_pixels_that_touch_at_a_corner() -> None:
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
    weights, count = region_weights(mask)
    assert count == 3
    assert weights.tolist() == [0.5, 1, 0.5, 1]


def test_au_pro_of_perfect_and_of_random_maps() -> None:
    rng = np.random.default_rng(0)
    masks = [np.zeros((64, 64), bool) for _ in range(4)]
    masks[0][10:20, 10:20] = masks[1][40:44, 2:60] = True
    perfect = [mask + rng.random((64, 64)) * 0.5 for mask in masks]
    assert au_pro(perfect, masks) == pytest.approx(1.0)
    # Of random maps overlap grows as fast as false positives: the area up to 0.3 is 0.15 of 0.3.
    noise = [rng.random((64, 64)) for _ in masks]
    assert au_pro(noise, masks) == pytest.approx(0.15, abs=0.05)


def test_au_pro_by_hand() -> None:
    # Two regions, 10 good pixels. Region one is above all good pixels; region two ties with the 3rd highest good one.
    mask = np.array([[1, 0, 1] + [0] * 9], bool)
    heat = np.array([[100, 10, 8, 9, 8, 7, 6, 5, 4, 3, 2, 1]], float)
    # overlap 0.5 for rates 0, 0.1, 0.2; then 1.0 at 0.3.
    expected = (0.5 * 0.2 + (0.5 + 1.0) / 2 * 0.1) / 0.3
    assert au_pro([heat], [mask], limit=0.3) == pytest.approx(expected)
    # At 0.25 the rising line is cut half way.
    expected = (0.5 * 0.2 + (0.5 + 0.75) / 2 * 0.05) / 0.25
    assert au_pro([heat], [mask], limit=0.25) == pytest.approx(expected)


def test_au_pro_weighs_regions_alike_and_needs_one() -> None:
    big, small = np.zeros((50, 50), bool), np.zeros((50, 50), bool)
    big[:20, :20] = True
    small[40:42, 40:42] = True
    masks = [big | small]
    found_big = [big.astype(float)]
    assert au_pro(found_big, masks, limit=0.05) == pytest.approx(0.5, abs=0.05)
    assert np.isnan(au_pro([np.zeros((4, 4))], [np.zeros((4, 4), bool)]))
    assert np.isnan(au_pro([np.zeros((4, 4))], [np.ones((4, 4), bool)]))
    assert np.isnan(au_pro([], []))
    with pytest.raises(ValueError, match="shape"):
        au_pro([np.zeros((4, 4))], [np.zeros((5, 4), bool)])
    with pytest.raises(BenchmarkError, match="limit"):
        au_pro(found_big, masks, limit=0)


@pytest.mark.parametrize("digits", [0, 6])
def test_au_pro_of_one_region_over_all_rates_is_auroc(digits: int) -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros((20, 20), bool)
    mask[5:9, 5:12] = True
    heat = np.round(rng.normal(size=mask.shape) + mask, digits)
    assert au_pro([heat], [mask], limit=1) == pytest.approx(auroc(mask, heat))


@pytest.mark.parametrize("limit", [0.3, 0.05])
@pytest.mark.parametrize("digits", [1, 5])
def test_au_pro_is_anomalibs(limit: float, digits: int) -> None:
    metrics = pytest.importorskip("anomalib.metrics.aupro")
    torch = pytest.importorskip("torch")
    maps, masks = _masked(3)
    # Blocks that touch at a corner only are one region here and two there.
    maps = [np.round(heat, digits).astype(np.float32) for heat in maps]
    metric = metrics._AUPRO(fpr_limit=limit)
    metric.update(torch.from_numpy(np.stack(maps)), torch.from_numpy(np.stack(masks)).int())
    assert au_pro(maps, masks, limit) == pytest.approx(float(metric.compute()), abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), digits=st.integers(0, 4))
def test_au_pro_knows_the_order_of_scores_only(seed: int, digits: int) -> None:
    maps, masks = _masked(seed, side=20)
    maps = [np.round(heat, digits) for heat in maps]
    expected = au_pro(maps, masks)
    assert au_pro([heat**3 - 5 for heat in maps], masks) == pytest.approx(expected)
    assert au_pro(maps[::-1], masks[::-1]) == pytest.approx(expected)


def test_area_of_several_curves_at_once() -> None:
    rates = np.array([[0.5, 1.0], [0.0, 1.0]])
    overlaps = np.array([[0.5, 1.0], [1.0, 1.0]])
    assert area_up_to(rates, overlaps, 0.2) == pytest.approx([0.1, 1.0])


def test_spro_by_hand() -> None:
    first, second = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    first[0] = True
    second[2:4] = True
    said = np.zeros((4, 5), bool)
    said[0, :2] = said[2, :3] = True
    # Two of the five pixels, of which four are enough; three of the ten, of which a fifth is.
    regions = [[SaturatedRegion(first, 4), SaturatedRegion(second, 0.2, relative=True)], []]
    assert spro([said, said], regions) == pytest.approx((2 / 4 + 1) / 2)
    assert SaturatedRegion(first, 100).enough == 5
    assert np.isnan(spro([said], [[]]))


@pytest.mark.parametrize(("saturation", "relative"), [(0, False), (-1, False), (0, True), (1.5, True)])
def test_saturations_that_make_no_sense_are_refused(saturation: float, relative: bool) -> None:
    region = SaturatedRegion(np.ones((2, 2), bool), saturation, relative)
    with pytest.raises(BenchmarkError, match="saturation"):
        spro([np.ones((2, 2), bool)], [[region]])


def test_au_spro_is_au_pro_where_all_of_a_region_is_needed() -> None:
    maps, masks = _masked(5)
    regions = []
    for mask in masks:
        parts = _regions(mask)
        regions.append([SaturatedRegion(part, 1.0, relative=True) for part in parts])
    assert au_spro(maps, regions, limit=0.3) == pytest.approx(au_pro(maps, masks, limit=0.3))


def _regions(mask: np.ndarray) -> list[np.ndarray]:
    import cv2

    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return [labels == label for label in range(1, count)]


@pytest.mark.parametrize("digits", [0, 4])
def test_au_spro_is_the_area_of_spro_over_all_thresholds(digits: int) -> None:
    maps, masks = _masked(6, side=24, photographs=3)
    maps = [np.round(heat, digits) for heat in maps]
    # Saturations of all sorts, a fraction of a pixel among them; the second defect lies over the first.
    over = np.zeros_like(masks[0])
    over[:6, :6] = True
    regions = [[SaturatedRegion(masks[0], 7), SaturatedRegion(over, 0.33, relative=True)], [], []]
    good = [~(masks[0] | over), np.ones_like(over), np.ones_like(over)]
    rates, overlaps = [], []
    for threshold in np.unique(np.stack(maps))[::-1]:
        said = [heat >= threshold for heat in maps]
        rates.append(sum((s & g).sum() for s, g in zip(said, good, strict=True)) / sum(g.sum() for g in good))
        overlaps.append(spro(said, regions))
    expected = area_up_to(np.array(rates), np.array(overlaps), 0.1)
    assert au_spro(maps, regions, limit=0.1) == pytest.approx(expected)


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
    with pytest.raises(BenchmarkError, match="tasks"):
        forgetting([[0.9], [0.8]])


@pytest.mark.parametrize("figure", [auroc, aupr])
def test_bootstrap_at_once_is_bootstrap_one_by_one(figure: Callable[..., float]) -> None:
    labels, scores = _labelled(2, digits=1)
    at_once = bootstrap(figure, labels, scores, repeats=2000, seed=1)
    one_by_one = bootstrap(lambda truth, values: figure(truth, values), labels, scores, repeats=2000, seed=2)
    assert at_once == pytest.approx(one_by_one, abs=0.02)
    assert at_once[0] < figure(labels, scores) < at_once[1]


def test_bootstrap_of_auroc_is_as_wide_as_theory_says() -> None:
    labels, scores = _labelled(3, digits=6, size=300)
    low, high = bootstrap(auroc, labels, scores, repeats=4000)
    # Standard error of DeLong et al. 1988, from the shares of the other class that each one beats.
    wins = scores[labels][:, None] > scores[~labels]
    error = np.sqrt(wins.mean(1).var(ddof=1) / wins.shape[0] + wins.mean(0).var(ddof=1) / wins.shape[1])
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_bootstrap_is_repeatable_stratified_and_takes_any_metric() -> None:
    labels, scores = _labelled(4)
    assert bootstrap(auroc, labels, scores, seed=3) == bootstrap(auroc, labels, scores, seed=3)
    assert bootstrap(auroc, labels, scores, seed=3) != bootstrap(auroc, labels, scores, seed=4)
    share = labels.mean()
    assert bootstrap(lambda truth, _: truth.mean(), labels, scores, repeats=20) == (share, share)
    low, high = bootstrap(lambda truth, said: at_threshold(truth, said).recall, labels, scores > 0.5, repeats=200)
    assert low < at_threshold(labels, scores > 0.5).recall < high
    narrow = bootstrap(auroc, labels, scores, level=0.5)
    wide = bootstrap(auroc, labels, scores, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_bootstrap_of_what_is_undefined_or_makes_no_sense() -> None:
    assert np.isnan(bootstrap(auroc, [1, 1], [0.1, 0.2], repeats=10)).all()
    with pytest.raises(BenchmarkError, match="level"):
        bootstrap(auroc, [1, 0], [0.1, 0.2], level=95)
