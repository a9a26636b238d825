from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.shots import joined
from fewshot_ad.zoo.components.tensors import Backbone, to_batch
from tests.conftest import make_part

SIDE = 96


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=SIDE) for seed in range(5)]


@pytest.mark.parametrize("views", ["none", "rotate=45"])
def test_defect_scores_above_good_and_is_found(good: list[np.ndarray], views: str) -> None:
    method = create("spade", image_size=SIDE, views=views)
    method.fit(good)
    predictions = method.predict([make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)])
    assert predictions.scores[1] > predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (SIDE, SIDE))
    assert np.hypot(y - SIDE / 2, x - 0.75 * SIDE) < 12


@pytest.mark.parametrize("neighbors", [2, 50])
def test_score_and_map_are_those_of_brute_force(good: list[np.ndarray], neighbors: int) -> None:
    image = make_part(100, size=SIDE, defect=True)
    method = create("spade", image_size=SIDE, neighbors=neighbors, sigma=0)
    method.fit(good)
    predictions = method.predict([image])
    with torch.no_grad():
        features = Backbone("resnet18")(to_batch([*good, image], SIDE))
    whole = features[-1].mean((2, 3)).numpy()
    squared = np.square(whole[:5] - whole[5]).sum(1)
    similar = np.argsort(squared)[:neighbors]
    assert predictions.scores[0] == pytest.approx(squared[similar].mean(), rel=1e-4)
    pixels = joined(features).flatten(2).permute(0, 2, 1).double()
    gallery = pixels[similar.tolist()].flatten(0, 1)
    nearest = torch.cdist(pixels[5], gallery).min(1).values.view(SIDE // 4, SIDE // 4)
    assert predictions.maps is not None
    expected = cv2.resize(nearest.float().numpy(), (SIDE, SIDE))
    np.testing.assert_allclose(predictions.maps[0], expected, rtol=1e-2, atol=1e-2)


def test_only_the_most_similar_images_are_compared(good: list[np.ndarray]) -> None:
    turned = [np.ascontiguousarray(255 - part) for part in good]
    maps = []
    for neighbors in (5, 50):
        method = create("spade", image_size=SIDE, neighbors=neighbors)
        method.fit([*turned, *good])
        maps.append(method.predict([make_part(50, size=SIDE)]))
    alone = create("spade", image_size=SIDE)
    alone.fit(good)
    expected = alone.predict([make_part(50, size=SIDE)])
    assert maps[0].scores[0] == pytest.approx(expected.scores[0], rel=1e-5)
    assert maps[1].scores[0] > 1.3 * expected.scores[0]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ZooError, match="expected"):
        create("spade", neighbors=0)
