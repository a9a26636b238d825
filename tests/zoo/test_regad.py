from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fewshot_ad.encoder import load_encoder
from fewshot_ad.encoder.siamese import Architecture, SiameseEncoder
from fewshot_ad.encoder.weights import WeightsCard, shipped_encoders
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.shots import joined, shots
from fewshot_ad.zoo.components.tensors import Backbone
from fewshot_ad.zoo.regad import MAX_SHOTS, SUPPORT_VIEWS
from tests.conftest import make_part

SIDE = 96


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=SIDE) for seed in range(4)]


@pytest.mark.parametrize("backbone", ["resnet18", "lite0"])
def test_defect_scores_above_good_and_is_found(good: list[np.ndarray], backbone: str) -> None:
    method = create("regad", image_size=SIDE, backbone=backbone)
    method.fit(good[:2])
    predictions = method.predict([make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)])
    assert predictions.scores[1] > 1.5 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (SIDE, SIDE))
    assert np.hypot(y - SIDE / 2, x - 0.75 * SIDE) < 12


def test_every_image_gives_22_different_views(good: list[np.ndarray]) -> None:
    ((views, masks),) = shots(good[:1], SIDE, SUPPORT_VIEWS)
    assert views.shape == (22, 3, SIDE, SIDE)
    distances = torch.cdist(views.flatten(1), views.flatten(1)) + torch.eye(22) * 1e9
    assert distances.min() > 0.5
    assert masks[0].min() == 255
    # A shift by a fifth in both directions leaves 0.8 x 0.8 of the image.
    assert (masks > 0).mean((1, 2)).min() == pytest.approx(0.64, abs=0.02)


def test_untrained_transformers_change_nothing(good: list[np.ndarray]) -> None:
    ((views, _),) = shots(good[:1], SIDE, ())
    with torch.no_grad():
        expected = joined(Backbone("resnet18")(views))
        method = create("regad", image_size=SIDE, registration="rotation+scale")
        features = method._embed(views)  # type: ignore[attr-defined]
    np.testing.assert_allclose(features.numpy(), expected.numpy(), atol=1e-3)


@pytest.mark.parametrize(
    ("backbone", "name"), [("resnet18", "resnet18_siamese"), ("convnext_atto", "convnext_siamese")]
)
def test_as_it_comes_its_transformers_are_those_that_ship(good: list[np.ndarray], backbone: str, name: str) -> None:
    ((views, _),) = shots(good[:1], SIDE, ())
    features = create("regad", image_size=SIDE, backbone=backbone)._embed(views)  # type: ignore[attr-defined]
    stages = load_encoder(name, engine="torch", stages=(0, 1, 2) if backbone == "convnext_atto" else (1, 2, 3))
    card = shipped_encoders()[name]
    assert card.architecture is not None
    assert card.architecture["registration"] == "rotation+scale"
    assert features.shape[1] == sum(stages.spec.channels)
    untrained = create("regad", image_size=SIDE, backbone=backbone, registration="rotation+scale")._embed(views)  # type: ignore[attr-defined]
    assert not np.allclose(features.numpy(), untrained.numpy(), atol=1e-2)


def test_a_trained_encoder_is_loaded_by_its_card(good: list[np.ndarray], tmp_path: Path) -> None:
    architecture = Architecture("resnet18", "rotation")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = SiameseEncoder(architecture).eval()
    for transformer in encoder.registration:  # type: ignore[union-attr]
        torch.nn.init.constant_(transformer.regression[-1].bias, 0.3)
    tensors = {k: v.contiguous() for k, v in encoder.state_dict().items() if not k.startswith("P.")}
    save_file(tensors, tmp_path / "own.safetensors")
    card: WeightsCard = dataclasses.replace(
        shipped_encoders()["resnet18_parts"],
        name="own",
        tensors="own.safetensors",
        tensors_sha256=hashlib.sha256((tmp_path / "own.safetensors").read_bytes()).hexdigest(),
        architecture=dataclasses.asdict(architecture),
    )
    card.write(tmp_path / "own.json")
    method = create("regad", image_size=SIDE, weights=str(tmp_path / "own.json"))
    ((views, _),) = shots(good[:1], SIDE, ())
    with torch.no_grad():
        expected = joined(encoder.upright(views)[0])
    np.testing.assert_allclose(method._embed(views).numpy(), expected.numpy(), atol=1e-4)  # type: ignore[attr-defined]
    method.fit(good[:1])
    assert np.isfinite(method.predict(good[1:2]).scores).all()
    (tmp_path / "own.safetensors").write_bytes(b"altered")
    with pytest.raises(WeightsError, match="sha256"):
        create("regad", weights=str(tmp_path / "own.json"))


def test_too_many_images_are_refused(good: list[np.ndarray]) -> None:
    with pytest.raises(ZooError, match=f"at most {MAX_SHOTS} images"):
        create("regad", image_size=SIDE).fit(good * 5)


@pytest.mark.parametrize("wrong", [{"image_size": 100}, {"image_size": 16}, {"regularization": 0}])
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("regad", **wrong)
