from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad.inspection.overlay import Marks, draw_marks
from fewshot_ad.inspection.regions import MapScale, find_near_misses, find_regions

SCALE = MapScale(0.0, 1.0)


def scene(peak: float, size: int = 300) -> np.ndarray:
    """A map with one hill left of the middle."""
    y, x = np.mgrid[:size, :size]
    return (peak * np.exp(-((x - 100) ** 2 + (y - 150) ** 2) / (2 * 25**2))).astype(np.float32)


def drawn(heat: np.ndarray, gray: int = 128, anomalous: bool = True, opacity: float = 0.18) -> np.ndarray:
    picture = np.full((*heat.shape, 3), gray, np.uint8)
    find = find_regions if anomalous else find_near_misses
    marks = Marks(find(heat, SCALE, heat.shape), 1.0 if anomalous else 0.85, anomalous)
    draw_marks(picture, heat, marks, opacity)
    return picture


def is_red(picture: np.ndarray) -> np.ndarray:
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    return (red > green + 60) & (red > blue + 60)


@pytest.mark.parametrize("gray", [10, 128, 250])
def test_a_defect_stays_visible_under_its_marks(gray: int) -> None:
    picture = drawn(scene(3.0), gray)
    # In the middle of the defect there is a tint, and no line.
    center = picture[145:155, 95:105].astype(int)
    assert 0 < np.abs(center - gray).max() <= 0.18 * 256
    assert np.abs(picture.astype(int) - gray)[:, 250:].max() == 0
    # A dark edge and a red line show on any ground.
    assert is_red(picture).sum() > 200
    assert gray == 10 or (picture.max(axis=2) < gray - 60).sum() > 200


def test_red_is_only_at_the_regions_of_an_anomalous_image() -> None:
    heat = scene(3.0)
    (region,) = find_regions(heat, SCALE, heat.shape)
    x, y, width, height = region.box
    red = is_red(drawn(heat))
    # The label stands above the box.
    red[y - 30 : y + height + 8, x - 8 : x + width + 8] = False
    assert not red.any()
    for peak in (0.9, 1.3):
        near = drawn(scene(peak), anomalous=False)
        assert (near != 128).any()
        red, green, blue = (near[..., channel].astype(int) for channel in range(3))
        assert not ((red > 150) & (green < 100) & (blue < 100)).any()


def test_a_spot_that_is_no_region_gets_no_mark() -> None:
    heat = scene(3.0)
    alone = drawn(heat)
    regions = find_regions(heat, SCALE, heat.shape)
    heat[250:260, 250:260] = 5
    picture = np.full((*heat.shape, 3), 128, np.uint8)
    draw_marks(picture, heat, Marks(regions, 1.0, True), 0.18)
    np.testing.assert_array_equal(picture, alone)


def test_near_misses_are_dashed() -> None:
    heat = scene(0.95)
    (region,) = find_near_misses(heat, SCALE, heat.shape)
    picture = drawn(heat, anomalous=False)
    row = picture[region.box[1] - 4, region.box[0] : region.box[0] + region.box[2]]
    yellow = (row[:, 0].astype(int) - row[:, 2]) > 80
    assert 0.2 < yellow.mean() < 0.9


def test_marks_are_enlarged_with_the_picture() -> None:
    heat = scene(3.0)
    marks = Marks(find_regions(heat, SCALE, (100, 100)), 1.0, True)
    picture = np.full((300, 300, 3), 128, np.uint8)
    draw_marks(picture, heat, marks, 0.18, enlarged=3)
    red = np.argwhere(is_red(picture))
    wanted = np.argwhere(is_red(drawn(heat)))
    np.testing.assert_allclose(red.min(axis=0), wanted.min(axis=0), atol=3)
    np.testing.assert_allclose(red.max(axis=0), wanted.max(axis=0), atol=3)
