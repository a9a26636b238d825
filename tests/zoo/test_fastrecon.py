from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fewshot_ad.encoder.pyramid import local_average
from fewshot_ad.errors import ZooError
from fewshot_ad.search.memory_bank import greedy_coreset
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.shots import joined
from fewshot_ad.zoo.components.tensors import Backbone, to_batch
from fewshot_ad.zoo.fastrecon import Support
from tests.conftest import make_part

SIDE = 96
GRID = SIDE // 8
FINE, BROKEN = make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=SIDE) for seed in range(5)]


def features_of(images: list[np.ndarray]) -> np.ndarray:
    """(n, h * w, d) float64."""
    with torch.no_grad():
        maps = joined([local_average(f) for f in Backbone("resnet18", (2, 3))(to_batch(images, SIDE))])
    return maps.flatten(2).transpose(1, 2).double().numpy()


@pytest.mark.parametrize("shots", [1, 5])
def test_defect_scores_above_good_and_is_found(good: list[np.ndarray], shots: int) -> None:
    # The published hundredth of so small images would be a handful of patches.
    method = create("fastrecon", image_size=SIDE, coreset_ratio=0.1)
    method.fit(good[:shots])
    predictions = method.predict([FINE, BROKEN])
    assert predictions.scores[1] > 1.5 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (SIDE, SIDE))
    assert np.hypot(y - SIDE / 2, x - 0.75 * SIDE) < 12


@pytest.mark.parametrize("regularization", [0.0, 2.0])
def test_map_is_the_distance_to_the_reconstruction(good: list[np.ndarray], regularization: float) -> None:
    method = create("fastrecon", image_size=SIDE, sigma=0, coreset_ratio=0.03, regularization=regularization)
    method.fit(good)
    support, q = features_of(good), features_of([BROKEN])[0]
    patches = support.reshape(-1, support.shape[2])
    s = patches[greedy_coreset(patches.astype(np.float32), round(0.03 * len(patches)))]
    m, gram = support.mean(0), s @ s.T
    w = (q @ s.T + regularization * m @ s.T) @ np.linalg.inv(gram + regularization * gram)
    expected = np.linalg.norm(q - w @ s, axis=1).reshape(GRID, GRID).astype(np.float32)
    predictions = method.predict([BROKEN])
    assert predictions.maps is not None
    np.testing.assert_allclose(predictions.maps[0], cv2.resize(expected, (SIDE, SIDE)), rtol=1e-2, atol=1e-3)
    assert predictions.scores[0] == pytest.approx(expected.max(), rel=1e-2)


def test_reconstruction_is_the_best_one_even_if_patches_repeat() -> None:
    draw = np.random.default_rng(0)
    s, q, m = draw.normal(size=(4, 9)), draw.normal(size=(6, 9)), draw.normal(size=(6, 9))
    s[3] = 2 * s[1]
    # Least squares of both terms of the objective, one below the other.
    weights = np.linalg.lstsq(
        np.concatenate([s.T, np.sqrt(2) * s.T]), np.concatenate([q.T, np.sqrt(2) * m.T]), rcond=None
    )[0]
    s, q, m = (torch.tensor(part, dtype=torch.float32) for part in (s, q, m))
    support = Support.of(s, m)
    assert len(support.basis) == 3
    np.testing.assert_allclose(support.reconstruct(q, 2.0), weights.T @ s.double().numpy(), atol=1e-5)


def test_with_as_many_patches_as_dimensions_only_the_distance_to_the_mean_is_left() -> None:
    draw = torch.Generator().manual_seed(0)
    s, q, m = (torch.randn(count, 9, generator=draw) for count in (12, 6, 6))
    support = Support.of(s, m)
    for regularization, share in ((0.0, 0.0), (2.0, 2 / 3), (1e6, 1.0)):
        left = (q - support.reconstruct(q, regularization)).norm(dim=1)
        np.testing.assert_allclose(left, share * (q - m).norm(dim=1), atol=1e-4)


@pytest.mark.parametrize("wrong", [{"coreset_ratio": 0}, {"coreset_ratio": 1.5}, {"regularization": -1}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("fastrecon", **wrong)
