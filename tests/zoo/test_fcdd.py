from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.tensors import to_batch
from fewshot_ad.zoo.fcdd import FCDD, changed, contrast_normalized, enlarged, one_class_loss, pseudo_huber
from tests.conftest import make_part

SIDE = 96
SETTINGS = {"image_size": SIDE, "width": 16, "steps": 40, "batch_size": 8}


@pytest.fixture(scope="module")
def fitted() -> FCDD:
    method = create("fcdd", **SETTINGS)
    method.fit([make_part(seed, size=SIDE) for seed in range(5)])
    return method  # type: ignore[return-value]


def test_defect_scores_above_good_and_is_found(fitted: FCDD) -> None:
    predictions = fitted.predict([make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)])
    assert predictions.scores[1] > 1.5 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (SIDE, SIDE))
    assert np.hypot(y - SIDE / 2, x - 0.75 * SIDE) < 16


def test_loss_by_hand() -> None:
    output = torch.tensor([[[[0.0, 3.0]]], [[[-1.0, 2.0]]]])
    heat = pseudo_huber(output)
    np.testing.assert_allclose(heat.flatten().numpy(), np.sqrt(np.array([0.0, 9, 1, 4]) + 1) - 1, rtol=1e-6)
    good, bad = float(heat[0].mean()), float(heat[1].mean())
    expected = (good - np.log(1 - np.exp(-bad))) / 2
    assert float(one_class_loss(heat, torch.tensor([False, True]))) == pytest.approx(expected, rel=1e-5)


def test_map_is_enlarged_by_a_gaussian_at_each_position() -> None:
    heat = torch.rand(1, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    down, across = np.mgrid[0 : 8 * 12, 0 : 8 * 10]
    expected = np.zeros((8 * 12, 8 * 10))
    for (i, j), value in np.ndenumerate(heat[0, 0].numpy()):
        y, x = down - (8 * i + 3.5), across - (8 * j + 3.5)
        within = (np.abs(y) < 31) & (np.abs(x) < 31)
        expected += value * within * np.exp(-(y**2 + x**2) / (2 * 12.0**2))
    large = enlarged(heat, 12.0)[0, 0].numpy()
    np.testing.assert_allclose(large / large.max(), expected / expected.max(), atol=1e-5)
    level = enlarged(torch.ones(1, 1, 16, 16), 12.0)[0, 0, 40:-40, 40:-40]
    np.testing.assert_allclose(level, 1, atol=0.02)


def test_light_does_not_matter() -> None:
    batch = to_batch([make_part(50, size=SIDE)], SIDE)
    torch.testing.assert_close(contrast_normalized(0.6 * batch + 0.2), contrast_normalized(batch), atol=1e-4, rtol=1e-4)


def test_a_blank_image_is_learned_from_without_a_range_of_contrasts() -> None:
    method = create("fcdd", **SETTINGS | {"steps": 1, "batch_size": 2})
    method.fit([np.zeros((SIDE, SIDE, 3), np.uint8)])
    assert np.isfinite(method.predict([np.zeros((SIDE, SIDE, 3), np.uint8)]).scores).all()


def test_training_images_are_changed_a_little() -> None:
    image, rng = make_part(0, size=103), np.random.default_rng(0)
    views = [changed(image, SIDE, rng) for _ in range(12)]
    assert {view.shape for view in views} == {(SIDE, SIDE, 3)}
    means = np.array([view.mean() for view in views])
    assert len(set(means)) > 6
    assert np.abs(means / image.mean() - 1).max() < 0.1


def test_the_published_network_has_the_same_grid() -> None:
    method = create("fcdd", **SETTINGS | {"backbone": "vgg11_bn", "weights": "random", "steps": 1, "batch_size": 2})
    method.fit([make_part(0, size=SIDE)])
    features = method._features(to_batch([make_part(1)], SIDE))  # type: ignore[attr-defined]
    assert features.shape == (1, 256, SIDE // 8, SIDE // 8)


def test_the_published_network_takes_its_weights_from_a_file(tmp_path: Path) -> None:
    """timm calls the layers of VGG by other names where it takes stages out of it."""
    torch.manual_seed(1)
    whole = timm.create_model("vgg11_bn", num_classes=1).features.state_dict()
    save_file({f"features.{key}": tensor for key, tensor in whole.items()}, str(tmp_path / "vgg.safetensors"))
    method = create("fcdd", **SETTINGS | {"backbone": "vgg11_bn", "weights": str(tmp_path / "vgg.safetensors")})
    loaded = method._frozen.state_dict()  # type: ignore[attr-defined]
    first = next(tensor for key, tensor in loaded.items() if key.endswith("features_0.weight"))
    torch.testing.assert_close(first, whole["0.weight"])


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"image_size": 100}, {"anomalies": 1.0}, {"stage": 3}, {"sigma": 0.0}])
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("fcdd", **wrong)
