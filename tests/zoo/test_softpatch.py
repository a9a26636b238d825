from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch

from fewshot_ad.encoder.pyramid import local_average
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.patch_outliers import outlier_weights
from fewshot_ad.zoo.components.shots import joined
from fewshot_ad.zoo.components.tensors import Backbone, to_batch
from fewshot_ad.zoo.softpatch import SoftPatch
from tests.conftest import make_part

SIDE = 96
GRID = SIDE // 8
FINE, BROKEN = make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=SIDE) for seed in range(7)]


@pytest.fixture(scope="module")
def noisy(good: list[np.ndarray]) -> list[np.ndarray]:
    """Eight images of which one is defective."""
    return [*good, make_part(101, size=SIDE, defect=True)]


def features_of(images: list[np.ndarray]) -> torch.Tensor:
    with torch.no_grad():
        return joined([local_average(f) for f in Backbone("resnet18", (2, 3))(to_batch(images, SIDE))])


@pytest.mark.parametrize("discriminator", ["lof", "nearest", "gaussian"])
def test_a_defect_among_the_images_is_still_found(noisy: list[np.ndarray], discriminator: str) -> None:
    method = create("softpatch", image_size=SIDE, discriminator=discriminator)
    method.fit(noisy)
    predictions = method.predict([FINE, BROKEN])
    assert predictions.scores[1] > 1.5 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (SIDE, SIDE))
    assert np.hypot(y - SIDE / 2, x - 0.75 * SIDE) < 12


def test_patchcore_misses_it(noisy: list[np.ndarray]) -> None:
    method = create("patchcore", image_size=SIDE, views="none")
    method.fit(noisy)
    scores = method.predict([FINE, BROKEN]).scores
    assert scores[1] < 1.2 * scores[0]


def test_scores_are_distances_times_the_weight_of_the_nearest_patch(noisy: list[np.ndarray]) -> None:
    method = cast(SoftPatch, create("softpatch", image_size=SIDE, sigma=0, coreset_ratio=1.0, threshold=0.2))
    method.fit(noisy)
    features = features_of(noisy)
    weights = outlier_weights(features).numpy().ravel()
    usual = weights <= np.quantile(weights, 0.8)
    bank = features.permute(0, 2, 3, 1).reshape(len(weights), -1).double().numpy()[usual]
    patches = features_of([BROKEN])[0].flatten(1).T.double().numpy()
    distances = np.stack([np.linalg.norm(bank - patch, axis=1) for patch in patches])
    expected = (distances.min(1) * weights[usual][distances.argmin(1)]).reshape(GRID, GRID).astype(np.float32)
    predictions = method.predict([BROKEN])
    assert predictions.maps is not None
    np.testing.assert_allclose(predictions.maps[0], cv2.resize(expected, (SIDE, SIDE)), rtol=2e-3, atol=1e-2)
    assert predictions.scores[0] == pytest.approx(expected.max(), rel=1e-3)


def test_the_memory_bank_has_a_tenth_of_the_patches_and_little_of_the_defect(noisy: list[np.ndarray]) -> None:
    method = cast(SoftPatch, create("softpatch", image_size=SIDE))
    method.fit(noisy)
    bank = cast(Any, method._bank)
    assert len(bank) == len(method._bank_weights) == round(0.1 * 8 * GRID**2)
    weights = outlier_weights(features_of(noisy)).numpy()
    assert method._bank_weights.max() <= np.quantile(weights, 0.85)
    # Around the defect, the patches of the defective image are among those left out.
    rows, columns = slice(GRID // 2 - 1, GRID // 2 + 1), slice(3 * GRID // 4 - 1, 3 * GRID // 4 + 1)
    assert weights[7, rows, columns].min() > np.quantile(weights, 0.85)


def test_with_one_image_it_is_patchcore(good: list[np.ndarray]) -> None:
    maps = []
    for method in (create("softpatch", image_size=SIDE), create("patchcore", image_size=SIDE, views="none")):
        method.fit(good[:1])
        predictions = method.predict([BROKEN])
        assert predictions.maps is not None
        maps.append(predictions.maps[0])
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "wrong", [{"discriminator": "nose"}, {"neighbors": 0}, {"threshold": 1}, {"coreset_ratio": 0}, {"threshold": -0.1}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("softpatch", **wrong)
