from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.tensors import Backbone, to_batch
from fewshot_ad.zoo.mkd import Cloner, discrepancy
from tests.conftest import make_part

SETTINGS = {"image_size": 64, "width": 16, "steps": 60}


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=96) for seed in range(5)]


def test_defect_scores_above_good(good: list[np.ndarray]) -> None:
    method = create("mkd", **SETTINGS)
    method.fit(good)
    scores = method.predict([make_part(50, size=96), make_part(100, size=96, defect=True)]).scores
    assert scores[1] > 1.1 * scores[0]


def test_training_lowers_the_loss(good: list[np.ndarray]) -> None:
    losses = []
    for steps in (1, 40):
        method = create("mkd", **SETTINGS | {"steps": steps})
        method.fit(good)
        losses.append(method.predict(good).scores.mean())
    assert losses[1] < 0.7 * losses[0]


def test_loss_by_hand() -> None:
    source = [torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0]], [[2.0]]]])]
    cloned = [torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0]], [[1.0]]]])]
    # Squared differences: 4 / 2 and 1 / 2. Cosines: 1 / sqrt(5) and 1.
    assert float(discrepancy(source, cloned, 0.5)) == pytest.approx(2.5 + 0.5 * (1 - 5**-0.5))


@pytest.mark.parametrize("backbone", ["resnet18", "lite0"])
def test_cloner_has_the_shapes_of_the_source(backbone: str) -> None:
    network = Backbone(backbone)
    batch = to_batch([make_part(0)], 64)
    cloner = Cloner(network.channels, network.strides, 8)
    assert [f.shape for f in cloner(batch)] == [f.shape for f in network(batch)]


def test_map_is_the_losss_gradient(good: list[np.ndarray]) -> None:
    # Next to no smoothing and no opening, and in the image's own size.
    method = create("mkd", **SETTINGS | {"steps": 5, "sigma": 0.01, "opening": 1})
    method.fit(good)
    image = make_part(100, size=64, defect=True)
    predictions = method.predict([image])
    source, cloner = method._source.double(), method._cloner.double()  # type: ignore[attr-defined]
    batch = to_batch([image], 64).double()
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[0].argmax()), (64, 64))
    slopes = []
    for channel in range(3):
        step = torch.zeros_like(batch)
        step[0, channel, y, x] = 1e-5
        up, down = (float(discrepancy(source(b), cloner(b), 2.0)) for b in (batch + step, batch - step))
        slopes.append(abs(up - down) / 2e-5)
    assert predictions.maps[0].max() == pytest.approx(sum(slopes), rel=0.02)


def test_smooth_gradients_repeat_and_differ_from_the_plain_one(good: list[np.ndarray]) -> None:
    maps = []
    for gradients in (1, 4, 4):
        method = create("mkd", **SETTINGS | {"steps": 5, "gradients": gradients})
        method.fit(good)
        predictions = method.predict(good[:1])
        assert predictions.maps is not None
        maps.append(predictions.maps[0])
    np.testing.assert_allclose(maps[1], maps[2], rtol=1e-4)
    assert np.abs(maps[0] - maps[1]).max() > 0.01 * maps[0].max()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"gradients": 0}, {"learning_rate": 0}, {"direction": -1}])
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("mkd", **wrong)
