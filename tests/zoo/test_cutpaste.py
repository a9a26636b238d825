from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.gaussians import Gaussians
from fewshot_ad.zoo.components.tensors import to_batch
from fewshot_ad.zoo.cutpaste import CutPaste, embedding, grad_cam
from tests.conftest import make_part

SIDE = 64
SETTINGS = {"image_size": SIDE, "steps": 8, "batch_size": 3, "head": [16], "copies": 2}


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=96) for seed in range(4)]


@pytest.fixture(scope="module")
def fitted(good: list[np.ndarray]) -> CutPaste:
    method = create("cutpaste", **SETTINGS)
    method.fit(good)
    return method  # type: ignore[return-value]


def test_defect_scores_above_good_and_is_found(fitted: CutPaste) -> None:
    predictions = fitted.predict([make_part(50, size=96), make_part(100, size=96, defect=True)])
    assert predictions.scores[1] > 1.3 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (96, 96))
    assert np.hypot(y - 48, x - 72) < 20


def test_score_is_the_mahalanobis_distance(fitted: CutPaste) -> None:
    rng = np.random.default_rng(0)
    samples, x = rng.normal(size=(30, 4)), rng.normal(size=4)
    features = torch.from_numpy(samples)[..., None, None]
    gaussian = Gaussians.fit(features, torch.ones(30, 1, 1, dtype=torch.bool), 1e-6)
    centered = x - samples.mean(0)
    expected = np.sqrt(centered @ np.linalg.inv(np.cov(samples.T)) @ centered)
    assert float(gaussian.distances(torch.from_numpy(x).float()[:, None, None])) == pytest.approx(expected, rel=1e-3)
    image = make_part(50, size=96)
    assert fitted._network is not None
    assert fitted._gaussian is not None
    vector = embedding(fitted._network(to_batch([image], SIDE))[0])
    distance = float(fitted._gaussian.distances(vector[0][:, None, None]))
    assert fitted.predict([image]).scores[0] == pytest.approx(distance, rel=1e-3)


def test_grad_cam_by_hand() -> None:
    maps = torch.tensor([[[1.0, 2.0]], [[3.0, 1.0]]])
    gradient = torch.tensor([[[2.0, 0.0]], [[-1.0, 0.0]]])
    # Weights 1 and -1/2: 1 - 1.5 and 2 - 0.5.
    torch.testing.assert_close(grad_cam(maps, gradient), torch.tensor([[0.0, 1.5]]))


def test_training_teaches_the_pretext_task(good: list[np.ndarray]) -> None:
    """The network moves away from its start, and a second fit begins there again."""
    method = create("cutpaste", **SETTINGS)
    networks = []
    for _ in range(2):
        method.fit(good)
        networks.append(method._network.state_dict())  # type: ignore[attr-defined]
    start = method._start.state_dict()  # type: ignore[attr-defined]
    kernel = "network.layer3.0.conv1.weight"
    assert (networks[0][kernel] - start[kernel]).abs().max() > 1e-3
    torch.testing.assert_close(networks[0][kernel], networks[1][kernel])


@pytest.mark.parametrize("variant", ["cutpaste", "scar"])
def test_one_image_and_one_kind_of_anomaly_are_enough(good: list[np.ndarray], variant: str) -> None:
    method = create("cutpaste", **SETTINGS | {"variant": variant, "batch_size": 1, "copies": 0, "steps": 2})
    method.fit(good[:1])
    predictions = method.predict([good[0], make_part(100, size=96, defect=True)])
    assert predictions.scores[1] > predictions.scores[0]
    assert predictions.maps is not None
    assert all(np.isfinite(heat).all() for heat in predictions.maps)


@pytest.mark.parametrize(
    "wrong",
    [{"variant": "4way"}, {"steps": 0}, {"copies": -1}, {"regularization": 0}, {"color_jitter": 0.5}, {"head": [0]}],
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("cutpaste", **wrong)
