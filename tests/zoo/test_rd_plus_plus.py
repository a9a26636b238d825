from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.simplex_noise import with_noise
from fewshot_ad.zoo.components.tensors import to_batch
from fewshot_ad.zoo.rd_plus_plus import compactness_loss, projection_loss
from tests.conftest import make_part

SETTINGS: dict[str, Any] = {"image_size": 64, "steps": 15, "batch_size": 2}


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=96) for seed in range(4)]


@pytest.fixture(scope="module")
def fitted(good: list[np.ndarray]) -> Any:
    method = create("rd_plus_plus", **SETTINGS)
    method.fit(good)
    return method


def test_defect_scores_above_good_and_is_found(fitted: Any) -> None:
    image = make_part(100, size=96, defect=True)
    predictions = fitted.predict([make_part(50, size=96), image])
    assert predictions.scores[1] > 1.1 * predictions.scores[0]
    difference = predictions.maps[1] - fitted.predict([make_part(100, size=96)]).maps[0]
    y, x = np.unravel_index(difference.argmax(), (96, 96))
    assert abs(y - 48) < 16
    assert abs(x - 72) < 16


def test_projection_loss_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    raw, noisy, good = (torch.rand(2, 3, 4, 4, generator=generator) for _ in range(3))
    r, n, g = (t.numpy().astype(np.float64) for t in (raw, noisy, good))

    def cosine(a: np.ndarray, b: np.ndarray, axis: Any) -> np.ndarray:
        return (a * b).sum(axis) / np.sqrt((a**2).sum(axis) * (b**2).sum(axis))

    reconstruction = (1 - cosine(n, g, 1)).mean()
    contrast = np.maximum(0, cosine(r, g, (1, 2, 3)) - 0.5).mean()
    assert contrast > 0
    transport = float(compactness_loss(good).mean())
    expected = 2 * (transport + 0.01 * reconstruction + 0.1 * contrast) / 1.11
    assert float(projection_loss([raw] * 2, [noisy] * 2, [good] * 2)) == pytest.approx(expected, rel=1e-4)


def test_compactness_compares_the_patches_of_different_images_wherever_they_are() -> None:
    image = torch.rand(1, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    other = torch.rand(1, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    assert compactness_loss(torch.cat([image, 2 * image.flip(2)])).abs().max() < 1e-5
    assert compactness_loss(torch.cat([image, other])).min() > 1e-3
    assert compactness_loss(image).abs().max() < 1e-5


def test_the_projections_are_trained_to_drop_noise(good: list[np.ndarray], fitted: Any) -> None:
    batch = to_batch(good, 64)
    clean, noisy = (fitted._teacher(b) for b in (batch, with_noise(batch, np.random.default_rng(9))))

    def share_left(student: Any) -> float:
        """Angle that noise makes between projections, as a share of the one that it makes between the features."""
        pairs = [(clean, noisy), (student.project(clean), student.project(noisy))]
        before, after = (
            sum(float((1 - torch.cosine_similarity(c, n, dim=1)).mean()) for c, n in zip(*pair, strict=True))
            for pair in pairs
        )
        return after / before

    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        assert share_left(fitted._student) < 0.5 * share_left(fitted._build())


@pytest.mark.parametrize(
    "wrong", [{"image_size": 32}, {"image_size": 100}, {"steps": 0}, {"sigma": 0.0}, {"projection_weight": -1.0}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("rd_plus_plus", **wrong)
