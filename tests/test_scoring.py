from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_ad.errors import SupportSetError
from fewshot_ad.images import Geometry
from fewshot_ad.inspection import MapScale
from fewshot_ad.scoring import ScoringConfig, anomaly_map, find_regions, measure, reweighted, top_mean
from fewshot_ad.search.memory_bank import MemoryBank, Origin


def bank_of(vectors: np.ndarray) -> MemoryBank:
    zeros = np.zeros(len(vectors), np.int32)
    return MemoryBank(vectors.astype(np.float32), Origin(zeros, zeros, np.zeros((len(vectors), 2), np.int32)), "l2")


def test_reweighting_is_equation_7() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 4)).astype(np.float16).astype(np.float32)
    query = rng.normal(size=4).astype(np.float32)
    bank = bank_of(vectors)
    distances = np.linalg.norm(vectors - query, axis=1)
    star = int(distances.argmin())
    around = np.argsort(np.linalg.norm(vectors - vectors[star], axis=1))[:9]
    expected = (1 - np.exp(distances[star]) / np.exp(distances[around]).sum()) * distances[star]
    assert reweighted(query, bank, 1.0, 9) == pytest.approx(expected, rel=1e-4)


def test_reweighting_does_not_overflow() -> None:
    vectors = np.array([[0.0, 0.0], [3000.0, 0.0], [0.0, 3000.0]])
    score = reweighted(np.array([1500.0, 1500.0], np.float32), bank_of(vectors), 1.0, 3)
    assert np.isfinite(score)
    assert 0 < score <= np.hypot(1500, 1500)


def test_top_mean() -> None:
    distances = np.arange(100, dtype=np.float32)
    assert top_mean(distances, 0.02) == pytest.approx(98.5)
    assert top_mean(distances, 0.0001) == 99


def test_mirrored_padding_does_not_count() -> None:
    geometry = Geometry((32, 24), (32, 24), (32, 32))
    level = np.zeros((4, 4, 2), np.float32)
    level[:, 3] = 50
    bank = [bank_of(np.zeros((2, 2)))]
    for kind in ("top_mean", "reweighted"):
        config = ScoringConfig(image_score=kind)  # type: ignore[arg-type]
        assert measure([level], bank, [1.0], geometry, config).score == pytest.approx(0, abs=1e-3)


def test_edge_patches_weigh_less_in_the_score_but_not_in_the_map() -> None:
    geometry = Geometry((40, 32), (40, 32), (48, 32))
    bank = [bank_of(np.zeros((2, 2)))]
    for (row, column), weight in {(0, 2): 0.5, (4, 2): 0.5, (2, 0): 0.5, (2, 2): 1.0, (5, 2): 0.0}.items():
        level = np.zeros((6, 4, 2), np.float32)
        level[row, column] = (3, 4)
        measured = measure([level], bank, [1.0], geometry, ScoringConfig(edge_weight=0.5, top_fraction=0.01))
        assert measured.score == pytest.approx(5 * weight, abs=1e-3)
        assert measured.grids[0][row, column] == pytest.approx(5, rel=1e-4)


def test_levels_are_joined_by_their_maximum() -> None:
    geometry = Geometry((32, 32), (32, 32), (32, 32))
    fine, coarse = np.zeros((4, 4), np.float32), np.zeros((2, 2), np.float32)
    fine[0, 0], coarse[1, 1] = 1, 2
    heat = anomaly_map([fine, coarse], geometry, sigma=0, image_size=32)
    assert heat.shape == (32, 32)
    assert heat[2, 2] == pytest.approx(1)
    assert heat[-1, -1] == pytest.approx(2)


def test_one_level_gives_the_map_that_enlarging_and_smoothing_give() -> None:
    for hw, sigma in (((256, 256), 4.0), ((96, 400), 2.5), ((272, 64), 0.0)):
        geometry = Geometry(hw, hw, hw)
        grid = np.random.default_rng(0).random((hw[0] // 8, hw[1] // 8), np.float32)
        wanted = cv2.resize(grid, hw[::-1], interpolation=cv2.INTER_LINEAR)
        if sigma:
            wanted = cv2.GaussianBlur(wanted, (0, 0), sigma)
        # A second level that is never the larger one takes the other way.
        two = anomaly_map([grid, grid * 0], geometry, sigma, 256)
        np.testing.assert_allclose(anomaly_map([grid], geometry, sigma, 256), wanted, atol=1e-5)
        np.testing.assert_allclose(two, wanted, atol=1e-5)


def test_map_points_at_the_patch_on_a_wide_image() -> None:
    geometry = Geometry.fit((500, 1250), 256, 16)
    grid = np.zeros((geometry.input_hw[0] // 8, geometry.input_hw[1] // 8), np.float32)
    grid[5, 40] = 1
    heat = anomaly_map([grid], geometry, sigma=4, image_size=256)
    assert heat.shape == geometry.content_hw
    (region,) = find_regions(heat, MapScale(0.0, 1.0), (500, 1250))
    scale_x, scale_y = geometry.scale_xy()
    assert region.peak[0] == pytest.approx(40.5 * 8 * scale_x, abs=8)
    assert region.peak[1] == pytest.approx(5.5 * 8 * scale_y, abs=8)


def test_regions_are_boxes_in_xy_worst_first() -> None:
    heat = np.zeros((100, 200), np.float32)
    heat[10:20, 30:60] = 2
    heat[70:75, 150:160] = 3
    heat[72, 155] = 4
    first, second = find_regions(heat, MapScale(0.0, 1.0), (100, 200))
    assert (first.box, first.area, first.peak) == ((150, 70, 10, 5), 50, (155, 72))
    assert second.box == (30, 10, 30, 10)
    assert first.severity == pytest.approx(4)


def test_regions_are_told_in_pixels_of_the_image() -> None:
    heat = np.zeros((100, 200), np.float32)
    heat[10:20, 30:60] = 2
    (region,) = find_regions(heat, MapScale(0.0, 1.0), (250, 1000))
    assert (region.box, region.area) == ((150, 25, 150, 25), 150 * 25)
    heat[:] = 2
    (region,) = find_regions(heat, MapScale(0.0, 1.0), (33, 77))
    assert (region.box, region.area) == ((0, 0, 77, 33), 77 * 33)


def test_there_is_always_a_where() -> None:
    heat = np.full((50, 50), 0.2, np.float32)
    heat[20, 20] = 0.6
    regions = find_regions(heat, MapScale(0.1, 1.0), (50, 50))
    assert len(regions) == 1
    assert regions[0].peak == (20, 20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "manhattan"},
        {"image_score": "median"},
        {"top_fraction": 0},
        {"neighbors": 1},
        {"sigma": -1},
        {"edge_weight": 2},
    ],
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(SupportSetError, match="expected"):
        ScoringConfig(**wrong)


@given(st.tuples(*[st.integers(16, 3000)] * 2), st.tuples(*[st.integers(64, 512)] * 2))
def test_regions_stay_inside_the_image(photo_hw: tuple[int, int], map_hw: tuple[int, int]) -> None:
    (region,) = find_regions(np.full(map_hw, 2, np.float32), MapScale(0.0, 1.0), photo_hw)
    assert region.box == (0, 0, photo_hw[1], photo_hw[0])
    assert 0 <= region.peak[0] < photo_hw[1]
    assert 0 <= region.peak[1] < photo_hw[0]
