from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_ad.inspection.regions import MapScale, find_near_misses, find_regions

SCALE = MapScale(0.0, 1.0)


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


@given(st.tuples(*[st.integers(16, 3000)] * 2), st.tuples(*[st.integers(64, 512)] * 2))
def test_regions_stay_inside_the_image(image_hw: tuple[int, int], map_hw: tuple[int, int]) -> None:
    (region,) = find_regions(np.full(map_hw, 2, np.float32), MapScale(0.0, 1.0), image_hw)
    assert region.box == (0, 0, image_hw[1], image_hw[0])
    assert 0 <= region.peak[0] < image_hw[1]
    assert 0 <= region.peak[1] < image_hw[0]


def test_at_most_twenty_regions_are_told_and_they_are_the_worst() -> None:
    heat = np.zeros((100, 100), np.float32)
    for i in range(25):
        heat[4 * (i // 5) * 5 : 4 * (i // 5) * 5 + 2, 4 * (i % 5) * 5 : 4 * (i % 5) * 5 + 2] = 2 + i
    regions = find_regions(heat, MapScale(0.0, 1.0), (100, 100))
    assert [region.severity for region in regions] == pytest.approx([26 - i for i in range(20)])


def test_areas_that_touch_at_a_corner_are_one_and_the_map_s_threshold_counts() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[5, 5] = heat[6, 6] = 1.5
    (region,) = find_regions(heat, MapScale(0.5, 1.5), (20, 20))
    assert (region.box, region.area, region.severity) == ((5, 5, 2, 2), 2, pytest.approx(1.0))


def test_below_the_maps_threshold_the_surroundings_of_the_peak_count() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[10, 8:13] = (0.5, 0.81, 0.9, 0.83, 0.79)
    # From three quarters of the way between the median, 0.5, and the peak, 0.9: 0.8.
    (region,) = find_regions(heat, MapScale(0.5, 1.5), (20, 20))
    assert (region.box, region.peak) == ((9, 10, 3, 1), (10, 10))
    # A map wholly below the median of good patches still has its peak.
    (lowest,) = find_regions(heat * 0.1, MapScale(0.5, 1.5), (20, 20))
    assert lowest.peak == (10, 10)


def test_a_region_is_at_least_one_pixel_of_the_image() -> None:
    heat = np.zeros((100, 100), np.float32)
    heat[50, 50] = 2
    (region,) = find_regions(heat, MapScale(0.0, 1.0), (20, 20))
    assert region.area == 1
    assert region.box == (10, 10, 1, 1)


@pytest.mark.parametrize(("first", "second"), [(2.0, 3.0), (3.0, 2.0)])
def test_regions_that_reach_into_each_other_keep_their_own_peaks(first: float, second: float) -> None:
    heat = np.zeros((30, 30), np.float32)
    heat[2:21, 2] = heat[20, 2:16] = first  # two hooks, each with an arm inside the other's box
    heat[10, 6:26] = heat[10:28, 25] = second
    severities = {region.box: region.severity for region in find_regions(heat, MapScale(0.0, 1.0), (30, 30))}
    assert severities == {(2, 2, 14, 19): pytest.approx(first), (6, 10, 20, 18): pytest.approx(second)}


def ring(side: int, radius: float, gaps: int) -> np.ndarray:
    """A ring of 1.5 on a map of zeros, with as many gaps, each a twentieth of it, where the map is 0.85."""
    y, x = np.mgrid[:side, :side] - side / 2
    angle = (np.arctan2(y, x) / (2 * np.pi) + 0.51) % 1
    on = np.abs(np.hypot(x, y) - radius) < 3
    return np.where(on, np.where((angle * gaps) % 1 < gaps / 20, 0.85, 1.5), 0).astype(np.float32)


@pytest.mark.parametrize("gaps", [0, 1, 5])
def test_a_ring_is_one_region_with_or_without_gaps(gaps: int) -> None:
    (region,) = find_regions(ring(256, 60, gaps) if gaps else ring(256, 60, 1) * 2, SCALE, (256, 256))
    assert region.box == pytest.approx((66, 66, 125, 125), abs=2)


def test_the_fragments_of_a_scratch_are_one_region() -> None:
    heat = np.zeros((256, 256), np.float32)
    for start in range(40, 200, 26):  # gaps of six pixels
        heat[100:104, start : start + 20] = 2
    (region,) = find_regions(heat, SCALE, (256, 256))
    assert region.box == (40, 100, 176, 4)
    assert region.area == 7 * 20 * 4


def test_two_defects_far_apart_are_two_even_where_the_map_is_high_between_them() -> None:
    heat = np.full((256, 256), 0.9, np.float32)
    heat[50:60, 50:60] = heat[50:60, 180:190] = 2
    assert [region.box for region in find_regions(heat, SCALE, (256, 256))] == [(50, 50, 10, 10), (180, 50, 10, 10)]


def test_a_spot_within_a_ring_is_a_part_of_it_and_may_be_its_peak() -> None:
    heat = ring(256, 60, 1) * 2
    heat[128, 128] = 9
    (region,) = find_regions(heat, SCALE, (256, 256))
    assert (region.peak, region.severity) == ((128, 128), pytest.approx(9))


def test_a_high_place_that_stays_below_the_threshold_is_no_region_of_its_own() -> None:
    heat = np.zeros((256, 256), np.float32)
    heat[50:60, 50:60] = 2
    heat[50:60, 68:72] = 0.9  # near enough for a bridge, but none leads there
    (region,) = find_regions(heat, SCALE, (256, 256))
    assert region.box == (50, 50, 10, 10)


def test_near_misses_begin_below_the_threshold_of_the_map() -> None:
    heat = np.zeros((100, 100), np.float32)
    heat[20:25, 30:40] = 0.84
    assert find_near_misses(heat, SCALE, (100, 100)) == ()
    heat[20:25, 30:40] = 0.86
    heat[70, 70] = 1.2
    spot, place = find_near_misses(heat, SCALE, (200, 200))
    assert (spot.box, spot.severity) == ((140, 140, 2, 2), pytest.approx(1.2))
    assert (place.box, place.severity) == ((60, 40, 20, 10), pytest.approx(0.86))


def test_a_region_as_json() -> None:
    (region,) = find_regions(np.full((10, 20), 2, np.float32), SCALE, (10, 20))
    assert region.as_dict() == {"box": [0, 0, 20, 10], "area": 200, "peak": [0, 0], "severity": 2.0}


def test_where_the_map_passes_its_threshold_nothing_below_is_a_region() -> None:
    heat = np.zeros((64, 64), np.float32)
    heat[10:16, 10:16], heat[40:46, 40:46] = 1.2, 0.95
    (region,) = find_regions(heat, MapScale(0.0, 1.0), (64, 64))
    assert region.box == (10, 10, 6, 6)
    # Where it stays below everywhere, the surroundings of the highest peak count.
    (region,) = find_regions(heat * 0.7, MapScale(0.0, 1.0), (64, 64))[:1]
    assert region.severity == pytest.approx(0.84)
