from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.errors import BenchmarkError
from fewshot_ad.metrics.ranking import auroc
from fewshot_ad.metrics.region_overlap import SaturatedRegion, area_up_to, au_pro, au_spro, pro, region_weights, spro


def _masked(seed: int, side: int = 40, images: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Maps that see half of the defects, and masks with some regions; the last image is good."""
    rng = np.random.default_rng(seed)
    masks = [np.zeros((side, side), bool) for _ in range(images)]
    for mask in masks[:-1]:
        for _ in range(3):
            y, x = rng.integers(0, side - 8, 2)
            mask[y : y + rng.integers(1, 8), x : x + rng.integers(1, 8)] = True
    return [rng.normal(size=mask.shape) + mask for mask in masks], masks


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
    big_map = [big.astype(float)]
    assert au_pro(big_map, masks, limit=0.05) == pytest.approx(0.5, abs=0.05)
    assert np.isnan(au_pro([np.zeros((4, 4))], [np.zeros((4, 4), bool)]))
    assert np.isnan(au_pro([np.zeros((4, 4))], [np.ones((4, 4), bool)]))
    assert np.isnan(au_pro([], []))
    with pytest.raises(ValueError, match="shape"):
        au_pro([np.zeros((4, 4))], [np.zeros((5, 4), bool)])
    for limit in (0, -0.1, 1.5):
        with pytest.raises(BenchmarkError, match="limit"):
            au_pro(big_map, masks, limit=limit)


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


@pytest.mark.parametrize("figure", [au_pro, au_spro, pro, spro])
def test_one_mask_or_list_of_defects_per_map(figure: Callable[..., float]) -> None:
    maps, masks = _masked(2)
    truth = masks if figure in (au_pro, pro) else [[SaturatedRegion(mask, 1)] for mask in masks[:-1]] + [[]]
    inputs = maps if figure in (au_pro, au_spro) else [heat > 1 for heat in maps]
    assert 0 <= figure(inputs, truth) <= 1
    for arguments in ((inputs[:-1], truth), (inputs, truth[:-1])):
        with pytest.raises(ValueError, match="zip"):
            figure(*arguments)


def test_limits_of_the_papers_by_default() -> None:
    maps, masks = _masked(4)
    regions = [[SaturatedRegion(mask, 5)] if mask.any() else [] for mask in masks]
    assert au_pro(maps, masks) == au_pro(maps, masks, limit=0.3)
    assert au_spro(maps, regions) == au_spro(maps, regions, limit=0.05)


def test_area_of_several_curves_at_once() -> None:
    rates = np.array([[0.5, 1.0], [0.0, 1.0]])
    overlaps = np.array([[0.5, 1.0], [1.0, 1.0]])
    assert area_up_to(rates, overlaps, 0.2) == pytest.approx([0.1, 1.0])
    rng = np.random.default_rng(7)
    rates, overlaps = (np.sort(rng.random((2, 3, 9))) for _ in range(2))
    rates[..., -1] = 1
    areas = area_up_to(rates, overlaps, 0.4)
    assert areas.shape == (2, 3)
    for index in np.ndindex(2, 3):
        assert areas[index] == pytest.approx(area_up_to(rates[index], overlaps[index], 0.4))


def test_spro_by_hand() -> None:
    first, second = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    first[0] = True
    second[2:4] = True
    predicted = np.zeros((4, 5), bool)
    predicted[0, :2] = predicted[2, :3] = True
    # Two of the five pixels, of which four are enough; three of the ten, of which a fifth is.
    regions = [[SaturatedRegion(first, 4), SaturatedRegion(second, 0.2, relative=True)], []]
    assert spro([predicted, predicted], regions) == pytest.approx((2 / 4 + 1) / 2)
    assert np.isnan(spro([predicted], [[]]))


@pytest.mark.parametrize(
    ("saturation", "relative", "pixels"),
    [(100, False, 10), (4, False, 4), (2.5, False, 2.5), (0.37, True, 3), (1.0, True, 10), (0.01, True, 1)],
)
def test_pixels_that_are_enough(saturation: float, relative: bool, pixels: float) -> None:
    # A share is rounded down to whole pixels, but not to none.
    assert SaturatedRegion(np.ones((2, 5), bool), saturation, relative).enough == pixels


@pytest.mark.parametrize(("saturation", "relative"), [(0, False), (-1, False), (0, True), (1.5, True)])
def test_saturations_that_make_no_sense_are_refused(saturation: float, relative: bool) -> None:
    region = SaturatedRegion(np.ones((2, 2), bool), saturation, relative)
    unit = "a share" if relative else "pixels"
    with pytest.raises(BenchmarkError, match=rf"got 4 pixels and {saturation} \({unit}\)"):
        spro([np.ones((2, 2), bool)], [[region]])


def test_a_defect_without_a_pixel_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="got 0 pixels and 3"):
        au_spro([np.ones((2, 2))], [[SaturatedRegion(np.zeros((2, 2), bool), 3)]])


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


@pytest.mark.parametrize(("limit", "published"), [(0.05, 0.47527), (0.1, 0.55318), (0.3, 0.72005), (1.0, 0.89203)])
def test_au_spro_is_that_of_the_authors_evaluation(limit: float, published: float) -> None:
    """Figures of the evaluation code that comes with MVTec LOCO AD, at points of its curve 0.0003 apart."""
    rows, columns = np.mgrid[0:90, 0:120]
    places = ((slice(5, 40), slice(10, 60)), (slice(30, 80), slice(50, 110)), (slice(60, 64), slice(3, 90)))
    enough = ((200, False), (0.37, True), (1.0, True))
    maps, regions = [], []
    for i in range(5):
        heat = np.sin((i + 1) * rows / 9 + 0.3 * i) * np.cos((i + 2) * columns / 13) + 0.001 * rows * columns / 90
        defects = []
        for place, (saturation, relative) in list(zip(places, enough, strict=True))[:i]:
            mask = np.zeros(heat.shape, bool)
            mask[place] = True
            heat = heat + 0.2 * mask
            defects.append(SaturatedRegion(mask, saturation, relative))
        maps.append(heat)
        regions.append(defects)
    assert au_spro(maps, regions, limit) == pytest.approx(published, abs=1e-4)


@pytest.mark.parametrize("digits", [0, 4])
def test_au_spro_is_the_area_of_spro_over_all_thresholds(digits: int) -> None:
    maps, masks = _masked(6, side=24, images=3)
    maps = [np.round(heat, digits) for heat in maps]
    # Saturations of all sorts, a fraction of a pixel among them; the second defect lies over the first.
    over = np.zeros_like(masks[0])
    over[:6, :6] = True
    regions = [[SaturatedRegion(masks[0], 7), SaturatedRegion(over, 0.33, relative=True)], [], []]
    good = [~(masks[0] | over), np.ones_like(over), np.ones_like(over)]
    rates, overlaps = [], []
    for threshold in np.unique(np.stack(maps))[::-1]:
        predicted = [heat >= threshold for heat in maps]
        rates.append(sum((s & g).sum() for s, g in zip(predicted, good, strict=True)) / sum(g.sum() for g in good))
        overlaps.append(spro(predicted, regions))
    expected = area_up_to(np.array(rates), np.array(overlaps), 0.1)
    assert au_spro(maps, regions, limit=0.1) == pytest.approx(expected)


def test_pro_averages_over_regions_not_over_pixels() -> None:
    mask, predicted = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    mask[0:10, 0:10] = mask[15:17, 15:17] = True
    predicted[0:5, 0:10] = predicted[15, 15] = predicted[19, 0] = True
    good = np.zeros((20, 20), bool)
    assert pro([predicted, predicted], [mask, good]) == pytest.approx((50 / 100 + 1 / 4) / 2)
    assert np.isnan(pro([predicted], [good]))
