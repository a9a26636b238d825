from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.errors import BenchmarkError
from fewshot_ad.metrics.pixel import PixelFigures, PixelMetrics, bootstrap_au_pro
from fewshot_ad.metrics.ranking import at_threshold, aupr, auroc, f1_max, iou
from fewshot_ad.metrics.region_overlap import SaturatedRegion, au_pro, au_spro

Maps = list[np.ndarray]
SIDE, IMAGES = 64, 24


def _masks(rng: np.random.Generator, good_first: bool = True) -> Maps:
    masks = []
    for number in range(IMAGES):
        # Of varying sizes, every image its own.
        mask = np.zeros((SIDE + number % 3, SIDE - number % 5), bool)
        if (number >= IMAGES // 2) == good_first:
            for _ in range(3):
                y, x = rng.integers(0, SIDE - 16, 2)
                mask[y : y + rng.integers(2, 12), x : x + rng.integers(2, 12)] = True
        masks.append(mask)
    return masks


def _streamed(maps: Maps, masks: Maps) -> PixelFigures:
    metrics = PixelMetrics()
    for heat, mask in zip(maps, masks, strict=True):
        metrics.add(heat, mask)
    return metrics.result()


def _exact(maps: Maps, masks: Maps) -> dict[str, float]:
    scores = np.concatenate([heat.astype(np.float32).ravel() for heat in maps])
    labels = np.concatenate([mask.ravel() for mask in masks])
    best = f1_max(labels, scores)
    return {
        "auroc": auroc(labels, scores),
        "aupr": aupr(labels, scores),
        "f1_max": best.f1,
        "iou_max": iou(scores >= best.threshold, labels),
        "au_pro": au_pro(maps, masks, 0.3),
        "au_pro_05": au_pro(maps, masks, 0.05),
    }


def _noise(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return rng.normal(size=mask.shape) + 1.5 * mask


def _scaled(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return rng.lognormal(0, 1, mask.shape) * (1 + 2 * mask) * np.exp(rng.normal())


def _tied(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return np.round(_noise(rng, mask), 1)


def _bytes(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return np.clip(np.round(100 + 40 * _noise(rng, mask)), 0, 255).astype(np.uint8)


def _constant(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return np.full(mask.shape, 0.3)


def _tiny_range(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return 1 + 1e-6 * _noise(rng, mask)


def _tiny_range_beside_zeros(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    heat = 1 + 1e-5 * _noise(rng, mask)
    heat[:, ::4] = 0
    return heat


def _heavy_tails(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return 1 + 1e-3 * (rng.standard_cauchy(mask.shape) + 3 * mask)


def _sigmoid(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-rng.normal(-20 + 34 * mask, 10)))


def _below_zero(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return -rng.gamma(2, 1, mask.shape) / (1 + 3 * mask)


def _all_magnitudes(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    heat = rng.choice([-1, 1], mask.shape) * 2.0 ** rng.uniform(-120, 120, mask.shape)
    return np.where(mask & (rng.random(mask.shape) < 0.7), np.abs(heat), heat)


@pytest.mark.parametrize("good_first", [True, False])
@pytest.mark.parametrize(
    "draw",
    [
        _noise,
        _scaled,
        _tied,
        _bytes,
        _constant,
        _tiny_range,
        _tiny_range_beside_zeros,
        _heavy_tails,
        _sigmoid,
        _below_zero,
        _all_magnitudes,
    ],
)
def test_figures_are_the_exact_ones(
    draw: Callable[[np.random.Generator, np.ndarray], np.ndarray], good_first: bool
) -> None:
    rng = np.random.default_rng(0)
    masks = _masks(rng, good_first)
    maps = [draw(rng, mask).astype(np.float32) for mask in masks]
    figures = _streamed(maps, masks)
    for name, expected in _exact(maps, masks).items():
        assert getattr(figures, name) == pytest.approx(expected, abs=1e-4), name
    # The threshold reaches that F1.
    labels = np.concatenate([mask.ravel() for mask in masks])
    rejected = np.concatenate([heat.ravel() for heat in maps]) >= figures.threshold
    assert at_threshold(labels, rejected).f1 == pytest.approx(figures.f1_max, abs=1e-3)
    assert figures.n_images == IMAGES
    assert (figures.n_defective, figures.n_good) == (labels.sum(), (~labels).sum())


def test_figures_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    masks = _masks(rng)
    maps = [_noise(rng, mask) for mask in masks]
    labels = np.concatenate([mask.ravel() for mask in masks])
    scores = np.concatenate([heat.ravel() for heat in maps])
    figures = _streamed(maps, masks)
    assert figures.auroc == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-5)
    assert figures.aupr == pytest.approx(metrics.average_precision_score(labels, scores), abs=1e-5)


def test_rare_scores_that_become_frequent_are_resolved_then() -> None:
    # A good pixel an image is at 1 where later all the defects are, within a part in ten thousand of each other.
    rng = np.random.default_rng(2)
    maps, masks = [], []
    for number in range(40):
        mask = np.zeros((SIDE, SIDE), bool)
        heat = rng.gamma(1, 1e-6, mask.shape)
        heat[0, 0] = 1
        if number >= 20:
            mask[10:16, 20:30] = True
            heat[mask] = 1 + 1e-5 * rng.normal(size=60)
            heat[1] = 1 - 1e-5 + 1e-5 * rng.normal(size=SIDE)
        maps.append(heat.astype(np.float32))
        masks.append(mask)
    figures = _streamed(maps, masks)
    for name, expected in _exact(maps, masks).items():
        assert getattr(figures, name) == pytest.approx(expected, abs=1e-4), name


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_the_order_of_images_and_the_scale_of_scores_do_not_matter(seed: int, order: object) -> None:
    rng = np.random.default_rng(seed)
    masks = [mask[:32, :32] for mask in _masks(rng)[-6:]]
    masks[0][3:7, 3:9] = True
    maps = [_noise(rng, mask).astype(np.float32) for mask in masks]
    expected = _streamed(maps, masks)
    shuffled = list(range(len(maps)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    again = _streamed([maps[i] for i in shuffled], [masks[i] for i in shuffled])
    cubed = _streamed([heat.astype(np.float64) ** 3 for heat in maps], masks)
    for name in ("auroc", "aupr", "f1_max", "au_pro", "au_pro_05"):
        assert getattr(again, name) == pytest.approx(getattr(expected, name), abs=1e-4)
        assert getattr(cubed, name) == pytest.approx(getattr(expected, name), abs=1e-4)


def test_perfect_maps() -> None:
    masks = _masks(np.random.default_rng(3))
    figures = _streamed([mask.astype(np.float32) for mask in masks], masks)
    assert (figures.auroc, figures.aupr, figures.f1_max, figures.iou_max, figures.threshold) == (1, 1, 1, 1, 1)
    assert figures.au_pro == pytest.approx(1)
    assert figures.au_pro_05 == pytest.approx(1)


def test_both_zeros_are_one_score() -> None:
    mask = np.array([[1, 1, 0, 0]], bool)
    assert _streamed([np.array([[0.0, -0.0, 0.0, -0.0]])], [mask]).auroc == 0.5


def test_nothing_good_or_nothing_defective_leaves_figures_undefined() -> None:
    nothing = PixelMetrics().result()
    assert nothing.n_images == 0
    assert np.isnan([nothing.auroc, nothing.aupr, nothing.f1_max, nothing.threshold, nothing.au_pro]).all()
    heat = np.arange(16, dtype=np.float32).reshape(4, 4)
    good = _streamed([heat], [np.zeros((4, 4), bool)])
    assert np.isnan([good.auroc, good.aupr, good.iou_max, good.au_pro, good.au_pro_05]).all()
    defective = _streamed([heat], [np.ones((4, 4), bool)])
    assert np.isnan([defective.auroc, defective.au_pro]).all()
    assert (defective.aupr, defective.f1_max, defective.n_regions) == (1, 1, 1)


def test_what_cannot_be_counted_is_refused_and_changes_nothing() -> None:
    metrics = PixelMetrics()
    metrics.add(np.array([[1.0, 0.0]]), np.array([[True, False]]))
    for bad in (np.array([[np.nan, 0.0]]), np.array([[np.inf, 0.0]]), np.array([[1e39, 0.0]])):
        with pytest.raises(BenchmarkError, match="finite"):
            metrics.add(bad, np.array([[False, True]]))
    for map_shape, mask_shape in (((2, 2), (2, 3)), ((2, 3), (2, 2)), ((4,), (4,)), ((2, 2, 3), (2, 2, 3))):
        with pytest.raises(BenchmarkError, match="mask of its size"):
            metrics.add(np.zeros(map_shape), np.zeros(mask_shape, bool))
    for map_shape in ((4,), (2, 2, 3)):
        with pytest.raises(BenchmarkError, match=r"expected an \(H, W\) map"):
            metrics.add_saturated(np.zeros(map_shape), [])
    assert metrics.result().n_images == 1
    assert metrics.result().auroc == 1


def test_masks_of_0_and_255_and_maps_that_are_views() -> None:
    rng = np.random.default_rng(4)
    mask = np.zeros((30, 40), np.uint8)
    mask[3:9, 3:9] = 255
    heat = _noise(rng, mask > 0).astype(np.float32)
    expected = _streamed([heat], [mask > 0])
    assert _streamed([heat], [mask]) == expected
    flipped = _streamed([np.asfortranarray(heat)[::-1]], [mask[::-1]])
    assert flipped.auroc == expected.auroc
    assert flipped.au_pro == pytest.approx(expected.au_pro)


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    rng = np.random.default_rng(5)
    metrics = PixelMetrics()
    mask = np.zeros((128, 128), bool)
    mask[20:40, 30:50] = True
    held = []
    tracemalloc.start()
    try:
        for number in range(30):
            # Ever new magnitudes, which need ever new pages.
            metrics.add((rng.normal(size=mask.shape) * 2.5 ** (number - 15)).astype(np.float32), mask)
            held.append(tracemalloc.get_traced_memory()[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(held) < 80e6
    assert peak < 250e6


def test_bootstrap_of_au_pro_is_that_of_the_exact_figure() -> None:
    rng = np.random.default_rng(6)
    masks = [mask[:40, :40] for mask in _masks(rng)]
    maps = [_noise(rng, mask) + rng.normal(0, 0.5) for mask in masks]
    interval = bootstrap_au_pro(maps, masks, repeats=1000, seed=1)
    kinds = [
        [i for i, mask in enumerate(masks) if mask.any()],
        [i for i, mask in enumerate(masks) if not mask.any()],
    ]
    figures = []
    for _ in range(300):
        draw = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        figures.append(au_pro([maps[i] for i in draw], [masks[i] for i in draw]))
    assert interval == pytest.approx(np.quantile(figures, [0.025, 0.975]), abs=0.02)
    assert interval[0] < au_pro(maps, masks) < interval[1]
    assert bootstrap_au_pro(maps, masks, repeats=1000, seed=1) == interval


def test_bootstrap_of_au_pro_of_alike_images_is_a_point_at_the_exact_figure() -> None:
    rng = np.random.default_rng(7)
    mask = np.zeros((60, 60), bool)
    mask[10:20, 10:20] = mask[40:44, 5:50] = True
    for digits in (1, 6):
        heat = np.round(_noise(rng, mask), digits)
        for limit in (0.3, 0.05):
            low, high = bootstrap_au_pro([heat] * 3, [mask] * 3, limit, repeats=20)
            assert low == pytest.approx(high)
            assert low == pytest.approx(au_pro([heat] * 3, [mask] * 3, limit), abs=1e-3)


def test_bootstrap_of_au_pro_draws_a_thousand_times_up_to_a_rate_of_30_percent_by_default() -> None:
    rng = np.random.default_rng(9)
    masks = _masks(rng)
    maps = [_noise(rng, mask) for mask in masks]
    explicit = bootstrap_au_pro(maps, masks, limit=0.3, repeats=1000, level=0.95, seed=0)
    assert bootstrap_au_pro(maps, masks) == explicit


def test_bootstrap_of_au_pro_needs_a_defect_and_a_good_pixel() -> None:
    heat = np.zeros((4, 4))
    assert np.isnan(bootstrap_au_pro([heat], [heat > 0])).all()
    assert np.isnan(bootstrap_au_pro([heat], [heat == 0])).all()


@pytest.mark.parametrize("limit", [0.3, 0.05])
def test_saturated_figures_are_the_exact_ones(limit: float) -> None:
    rng = np.random.default_rng(8)
    maps, defects = [], []
    for _ in range(6):
        first, second = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
        first[5:20, 8:30] = second[15:30, 20:40] = True
        maps.append(np.where(first, rng.normal(1, 1, first.shape), rng.normal(0, 1, first.shape)))
        defects.append([SaturatedRegion(first, 40), SaturatedRegion(second, 0.3, relative=True)])
    maps.append(rng.normal(0, 1, (60, 60)))
    defects.append([])
    streamed = PixelMetrics()
    for heat, regions in zip(maps, defects, strict=True):
        streamed.add_saturated(heat, regions)
    figures = streamed.result()
    assert (figures.au_pro if limit == 0.3 else figures.au_pro_05) == pytest.approx(
        au_spro(maps, defects, limit), abs=1e-4
    )
    assert (figures.n_images, figures.n_regions) == (7, 12)
