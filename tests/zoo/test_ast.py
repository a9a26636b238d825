from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.ast import distances, position_code
from fewshot_ad.zoo.components.tensors import to_batch
from tests.conftest import make_part

SETTINGS: dict[str, Any] = {
    "image_size": 64,
    "stage": 2,
    "blocks": 2,
    "hidden": 16,
    "width": 32,
    "residuals": 1,
    "steps": 40,
}


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=96) for seed in range(5)]


@pytest.fixture(scope="module")
def fitted(good: list[np.ndarray]) -> Any:
    method = create("ast", **SETTINGS, learning_rate=2e-3)
    method.fit(good)
    return method


def test_defect_scores_above_good_and_is_found(fitted: Any) -> None:
    image = make_part(100, size=96, defect=True)
    predictions = fitted.predict([make_part(50, size=96), make_part(51, size=96), image])
    assert predictions.scores[2] > 1.2 * predictions.scores[:2].max()
    y, x = np.unravel_index(predictions.maps[2].argmax(), (96, 96))
    assert abs(y - 48) < 16
    assert abs(x - 72) < 16


def test_teacher_makes_good_features_normal_and_student_imitates_it(good: list[np.ndarray], fitted: Any) -> None:
    with torch.no_grad():
        features = fitted._backbone(to_batch(good, 64))[0]
        code = position_code(32, *features.shape[2:])
        latent, log_determinant = fitted._teacher(features, code.expand(5, -1, -1, -1))
        # The negative log-likelihood, up to its constant, of features as they come and as the teacher maps them.
        assert (latent.square().sum(1) / 2 - log_determinant).mean() < 0.5 * (features.square().sum(1) / 2).mean()
        assert distances(latent, fitted._student(features, code)).mean() < 0.5 * latent.var()


def test_an_untrained_teacher_is_the_identity_up_to_order() -> None:
    teacher, _ = create("ast", **SETTINGS)._networks(torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    features = torch.rand(1, 128, 4, 4)
    latent, log_determinant = teacher(features, position_code(32, 4, 4))
    torch.testing.assert_close(latent.sort(1).values, features.sort(1).values)
    assert (log_determinant == 0).all()


def test_position_code_by_hand() -> None:
    code = position_code(8, 3, 5)[0].numpy()
    assert code.shape == (8, 3, 5)
    # Half of the channels is 4: frequencies 1 and 10,000^(-2/4) = 0.01.
    y, x = 2, 3
    expected = [f(p * w) for p in (x, y) for w in (1, 0.01) for f in (np.sin, np.cos)]
    np.testing.assert_allclose(code[:, y, x], expected, atol=1e-6)


def test_score_is_the_maximum_of_the_enlarged_distances_or_their_mean(good: list[np.ndarray], fitted: Any) -> None:
    image = make_part(100, size=96, defect=True)
    with torch.no_grad():
        features = fitted._backbone(to_batch([image], 64))[0]
        code = position_code(32, *features.shape[2:])
        difference = (fitted._teacher(features, code)[0] - fitted._student(features, code)).numpy()[0]
    grid = (difference**2).mean(0)
    enlarged = cv2.resize(grid, (16, 16), interpolation=cv2.INTER_CUBIC)
    assert float(fitted.predict([image]).scores[0]) == pytest.approx(enlarged.max(), rel=1e-3)
    fitted.reduction = "mean"
    try:
        assert float(fitted.predict([image]).scores[0]) == pytest.approx(grid.mean(), rel=1e-4)
    finally:
        fitted.reduction = "max"


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"clamp": 0.0}, {"encoding": 6}, {"reduction": "median"}, {"image_size": 16}],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("ast", **wrong)
