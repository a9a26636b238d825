from __future__ import annotations

import dataclasses
import json
import pickle
import tracemalloc

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.inspection.regions import MapScale, find_regions
from fewshot_ad.inspection.result import Inspection

SCALE = MapScale(1.0, 3.0)


def inspection(heat: np.ndarray, severity: float = 0.5) -> Inspection:
    image = np.full((*heat.shape, 3), 128, np.uint8)
    bad = severity > 1
    regions = find_regions(heat, SCALE, heat.shape) if bad else ()
    return Inspection("p", "e", severity, 1.0, bad, severity, regions, SCALE, {"total": 1.0}, image, lambda: heat)


def spot(value: float, hw: tuple[int, int] = (400, 400)) -> np.ndarray:
    """A map at the median of good parts, 1.0, with a square of another value."""
    heat = np.full(hw, 1.0, np.float32)
    heat[100:140, 100:150] = value
    return heat


def test_a_plainly_good_part_is_shown_as_it_is_and_draws_no_map() -> None:
    def draw() -> np.ndarray:
        raise AssertionError("a map was drawn")

    result = dataclasses.replace(inspection(spot(9.0)), draw_map=draw)
    np.testing.assert_array_equal(result.overlay(), result.image)
    assert result.overlay() is not result.image
    assert result.near_misses == ()
    assert result.as_dict()["near_misses"] == []


def test_the_colors_are_those_of_a_fixed_scale() -> None:
    heat = spot(4.0)
    picture = inspection(heat, 1.5).overlay()
    # Another, worse place elsewhere changes nothing here: no per-image stretching.
    heat[300:340, 300:340] = 300.0
    np.testing.assert_array_equal(inspection(heat, 1.5).overlay()[:200, :200], picture[:200, :200])


def test_a_near_miss_is_marked_in_another_color_than_a_defect() -> None:
    near = inspection(spot(2.8), 0.95)
    assert [region.box for region in near.near_misses] == [(100, 100, 50, 40)]
    assert near.as_dict()["near_misses"] == [region.as_dict() for region in near.near_misses]
    picture = near.overlay()
    assert (picture[90:150, 90:160] != 128).any()
    colored = picture[(picture != 128).any(axis=2)].astype(int)
    assert not ((colored[:, 0] > 150) & (colored[:, 1] < 100)).any()
    assert inspection(spot(2.6), 0.95).near_misses == ()
    assert inspection(spot(2.8), 1.5).near_misses == ()


def test_the_bar_is_below_an_image_of_the_same_size() -> None:
    result = inspection(spot(4.0), 1.5)
    assert result.overlay().shape == (400, 400, 3)
    barred = result.overlay(bar=True)
    np.testing.assert_array_equal(barred[:400], result.overlay())
    assert barred.shape[0] > 440
    renamed = dataclasses.replace(result, name="0001.png").overlay(bar=True)
    assert (renamed != barred).any()


def test_a_verdict_in_words() -> None:
    good, bad = inspection(spot(1.0), 0.9999), inspection(spot(4.0), 1.0001)
    assert (good.verdict, good.severity_text) == ("good", "0.99")
    assert (bad.verdict, bad.severity_text) == ("anomalous", "1.01")


@pytest.mark.parametrize("bar", [False, True])
def test_drawing_a_large_overlay_takes_little_beside_its_result(bar: bool) -> None:
    large = dataclasses.replace(inspection(spot(4.0), 1.5), image=np.full((4000, 3000, 3), 128, np.uint8))
    tracemalloc.start()
    large.overlay(bar=bar)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * large.image.nbytes


def test_inspection_is_frozen_and_json_able(inspector: Inspector, broken_part: np.ndarray) -> None:
    result = inspector.inspect(broken_part)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.score = 0.0  # type: ignore[misc]
    fields = json.loads(json.dumps(result.as_dict()))
    assert fields["schema"] == "fewshot-ad/inspect/1"
    assert fields["is_anomalous"] is True
    assert fields["regions"][0]["box"] == list(result.regions[0].box)
    assert "anomaly_map" not in repr(result)


def test_the_map_is_made_once_and_only_when_read() -> None:
    made: list[int] = []

    def draw() -> np.ndarray:
        made.append(1)
        return np.ones((10, 10), np.float32)

    result = dataclasses.replace(inspection(np.zeros((40, 20), np.float32)), draw_map=draw)
    assert made == []
    assert result.anomaly_map.shape == (40, 20)
    assert result.anomaly_map is result.anomaly_map
    assert result.working_map.shape == (10, 10)
    assert made == [1]


def test_an_inspection_travels_between_processes(inspector: Inspector, broken_part: np.ndarray) -> None:
    for part in (broken_part, inspector.references[0].content):
        result = inspector.inspect(part)
        again = pickle.loads(pickle.dumps(result))  # noqa: S301 - made on the same line
        np.testing.assert_array_equal(again.anomaly_map, result.anomaly_map)
