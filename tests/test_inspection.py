from __future__ import annotations

import dataclasses
import json
import pickle
import tracemalloc

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.inspection import Inspection, MapScale, Region, blend_heat


def inspection(heat: np.ndarray, regions: tuple[Region, ...] = ()) -> Inspection:
    image = np.full((*heat.shape, 3), 128, np.uint8)
    scale = MapScale(1.0, 3.0)
    return Inspection("p", "e", 0.5, 1.0, False, 0.5, regions, scale, {"total": 1.0}, image, lambda: heat)


def test_overlay_has_a_fixed_scale() -> None:
    heat = np.full((20, 20), 1.0, np.float32)
    np.testing.assert_array_equal(inspection(heat).overlay(), 128)
    heat[5, 5] = 3.0
    picture = inspection(heat).overlay()
    red = picture[5, 5].astype(int)
    assert red[0] > red[1] + 50
    assert red[0] > red[2] + 50
    # Another, worse pixel elsewhere changes nothing here: no per-image stretching.
    heat[15, 15] = 300.0
    np.testing.assert_array_equal(inspection(heat).overlay()[5, 5], picture[5, 5])


def test_overlay_of_a_large_image_is_that_of_its_map() -> None:
    # More pixels than one block has, and a map of another size.
    heat = np.random.default_rng(0).uniform(1, 3, (40, 30)).astype(np.float32)
    large = dataclasses.replace(inspection(heat), image=np.full((2300, 1000, 3), 128, np.uint8))
    shares = np.clip(large.map_scale.apply(large.anomaly_map), 0, 1)
    expected = blend_heat(large.image, shares, 0.55 * shares * shares)
    np.testing.assert_array_equal(large.overlay(), expected)


def test_drawing_a_large_overlay_takes_little_beside_its_result() -> None:
    large = dataclasses.replace(
        inspection(np.full((40, 30), 2, np.float32)), image=np.full((4000, 3000, 3), 128, np.uint8)
    )
    tracemalloc.start()
    large.overlay()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * large.image.nbytes


def test_overlay_outlines_regions() -> None:
    region = Region((2, 3, 10, 8), 80, (5, 5), 2.0)
    picture = inspection(np.ones((40, 40), np.float32), (region,)).overlay()
    np.testing.assert_array_equal(picture[3, 2], [255, 0, 0])
    np.testing.assert_array_equal(picture[10, 11], [255, 0, 0])


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
