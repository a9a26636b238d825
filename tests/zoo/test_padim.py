from __future__ import annotations

from typing import Any

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


@pytest.mark.parametrize("views", ["none", "hflip,rotate=10"])
def test_defect_scores_above_good_and_is_found(good: list[np.ndarray], views: str) -> None:
    method = create("padim", image_size=SIDE, views=views)
    method.fit(good)
    predictions = method.predict([make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)])
    assert predictions.scores[1] > 1.5 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (SIDE, SIDE))
    assert np.hypot(y - SIDE / 2, x - 0.75 * SIDE) < 12


@pytest.mark.parametrize("dims", [3, 20])
def test_map_is_the_mahalanobis_distance(good: list[np.ndarray], dims: int) -> None:
    image = make_part(100, size=SIDE, defect=True)
    method = create("padim", seed=4, image_size=SIDE, dims=dims, sigma=0)
    method.fit(good)
    predictions = method.predict([image])
    dims_of_seed = method._kept_dims  # type: ignore[attr-defined]
    with torch.no_grad():
        features = joined(Backbone("resnet18")(to_batch([*good, image], SIDE)))[:, dims_of_seed]
    samples, query = features[:5].double().numpy(), features[5].double().numpy()
    side = SIDE // 4
    expected = np.zeros((side, side), np.float32)
    for y in range(side):
        for x in range(side):
            inverse = np.linalg.inv(np.cov(samples[:, :, y, x], rowvar=False) + 0.01 * np.eye(dims))
            offset = query[:, y, x] - samples[:, :, y, x].mean(0)
            expected[y, x] = np.sqrt(offset @ inverse @ offset)
    heat = cv2.resize(expected, (SIDE, SIDE))
    assert predictions.maps is not None
    np.testing.assert_allclose(predictions.maps[0], heat, rtol=5e-3, atol=1e-2)
    assert predictions.scores[0] == pytest.approx(heat.max(), rel=1e-3)


def test_dimensions_are_chosen_by_the_seed_and_as_many_as_published() -> None:
    first, second, other = (create("padim", seed=seed)._kept_dims for seed in (1, 1, 2))  # type: ignore[attr-defined]
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert len(first) == len(set(first.tolist())) == 100
    wide = create("padim", backbone="wide_resnet50_2", weights="random")
    assert len(wide._kept_dims) == 550  # type: ignore[attr-defined]


def test_one_image_is_enough(good: list[np.ndarray]) -> None:
    method = create("padim", image_size=SIDE)
    method.fit(good[:1])
    scores = method.predict([make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)]).scores
    assert scores[1] > scores[0]


def test_a_defect_among_the_images_is_still_found_if_they_are_trimmed(good: list[np.ndarray]) -> None:
    noisy = [*good, make_part(5, size=SIDE), make_part(6, size=SIDE), make_part(101, size=SIDE, defect=True)]
    images = [make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)]
    predictions = {}
    for trim in (0.0, 0.125):
        method = create("padim", image_size=SIDE, trim=trim)
        method.fit(noisy)
        predictions[trim] = method.predict(images)
    fine, broken = predictions[0.125].scores
    assert broken > 1.5 * fine
    assert broken > 2 * predictions[0.0].scores[1]
    maps = predictions[0.125].maps
    assert maps is not None
    y, x = np.unravel_index(int(maps[1].argmax()), (SIDE, SIDE))
    assert np.hypot(y - SIDE / 2, x - 0.75 * SIDE) < 12


@pytest.mark.parametrize("wrong", [{"regularization": 0}, {"dims": 0}, {"views": "sideways"}, {"trim": 0.5}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("padim", **wrong)
