from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.tensors import Backbone, to_batch
from fewshot_ad.zoo.components.training import train_steps
from fewshot_ad.zoo.nsa import NSA, Localizer, label
from tests.conftest import make_part

SETTINGS = {"image_size": 64, "steps": 2, "batch_size": 3}


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=96) for seed in range(4)]


def test_logistic_and_binary_labels_by_hand() -> None:
    difference = np.array([[0.0, 9.0, 15.0, 21.0]], np.float32)
    expected = [0, 1 / (1 + np.e), 0.5, 1 / (1 + np.exp(-1))]
    np.testing.assert_allclose(label(difference, "logistic", (1 / 6, 15))[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(label(difference, "binary", (1 / 6, 15))[0], [0, 1, 1, 1])
    np.testing.assert_array_equal(label(difference, "continuous", (1 / 6, 15)), difference)


@pytest.mark.parametrize("weights", ["random", None])
def test_network_gives_one_value_per_pixel_and_all_of_it_learns(weights: str | None) -> None:
    network = Localizer(Backbone("resnet18", (3,), weights)).requires_grad_(True).train()
    output = network(torch.rand(2, 3, 64, 96))
    assert output.shape == (2, 1, 64, 96)
    output.mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.encoder.network.training
    assert not network.eval().encoder.network.training


def test_network_learns_to_mark_a_defect() -> None:
    """That patches of other images teach it the same takes more steps than a test has."""
    torch.manual_seed(0)
    batch = to_batch([make_part(0, size=64), make_part(0, size=64, defect=True)], 64)
    masks = torch.zeros(2, 1, 64, 64)
    masks[1] = (batch[0] - batch[1]).abs().amax(0, keepdim=True) > 0.1
    network = Localizer(Backbone("resnet18", (3,))).requires_grad_(True).train()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    train_steps(lambda: F.binary_cross_entropy_with_logits(network(batch), masks), 20, [optimizer])
    heat = torch.sigmoid(network(batch).detach())
    assert heat[masks > 0].mean() > 3 * heat[masks == 0].mean()


def test_samples_differ_from_good_images_where_their_labels_say_so(good: list[np.ndarray]) -> None:
    method: NSA = create("nsa", **SETTINGS, labels="binary", rotation=0.0, shift=0.0)  # type: ignore[assignment]
    images = [cv2.resize(image, (64, 64)) for image in good[:1]]
    batch, labels = method._samples(images, np.random.default_rng(0))
    assert batch.shape == (3, 3, 64, 64)
    changed = (batch - to_batch(images, 64)).abs().amax(1, keepdim=True) > 0
    # The median filters fill the odd pixel that happens to be the same.
    assert changed[labels > 0].float().mean() > 0.95
    assert labels.any()


@pytest.mark.parametrize("labels", ["binary", "continuous", "logistic"])
def test_score_is_the_mean_of_the_map(good: list[np.ndarray], labels: str) -> None:
    method = create("nsa", **SETTINGS, labels=labels, background=(110, 20))
    method.fit(good)
    predictions = method.predict([make_part(50, size=64)])
    assert predictions.maps is not None
    assert predictions.scores[0] == pytest.approx(predictions.maps[0].mean(), rel=1e-4)
    assert predictions.maps[0].min() >= 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 100},
        {"labels": "bounded"},
        {"batch_size": 1},
        {"scales": (1.3, 0.7)},
        {"logistic": (0.0, 15.0)},
        {"least_object": 1.0},
        {"shift": 0.5},
    ],
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("nsa", **wrong)
