"""anomalib's models under the protocol of the zoo: offline, seeded, maps in the image's size."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pytest
import torch

from fewshot_ad import zoo
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.anomalib.backbones import timm_name
from fewshot_ad.zoo.components.colored_points import colored_points
from fewshot_ad.zoo.components.tensors import Backbone, standardize
from tests.conftest import make_part, real_part
from tests.zoo.progress import assert_progress
from tests.zoo.storing import restored

pytest.importorskip("anomalib")

VIT_S_14, VIT_S_14_REG = "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"
VIT_S_16 = "vit_small_patch16_dinov3"
# Settings that make each of them take seconds.
TINY: dict[str, dict[str, Any]] = {
    "patchcore": {},
    "mh_patchcore": {},
    "padim": {},
    "dfkde": {},
    "dfm": {},
    "cfa": {"epochs": 1},
    "fre": {"epochs": 1},
    "stfpm": {"epochs": 1},
    "reverse_distillation": {"epochs": 1},
    "uninet": {"image_size": 32, "epochs": 1, "backbone": "resnet50", "batch_size": 2},
    "efficient_ad_s": {"image_size": 256, "steps": 1, "teacher_weights": "random", "penalty_images": 2},
    "efficient_ad_m": {"image_size": 256, "steps": 1, "teacher_weights": "random", "penalty_images": 2},
    "cflow": {"epochs": 1, "coupling_blocks": 1},
    "csflow": {"image_size": 128, "epochs": 1, "hidden_channels": 8, "coupling_blocks": 1},
    "fastflow": {"epochs": 1, "flow_steps": 1},
    "uflow": {"epochs": 1, "flow_steps": 1},
    "patchflow": {"image_size": 128, "epochs": 1},
    "draem": {"image_size": 32, "epochs": 1, "textures": 2},
    "dsr": {"image_size": 64, "epochs": 2, "latent_steps": 1},
    "glass": {"epochs": 1, "textures": 2, "embedding": 32, "hidden": 16, "ascent_steps": 1},
    "supersimplenet": {"image_size": 128, "epochs": 1},
    "ganomaly": {"image_size": 32, "epochs": 1, "features": 8},
    "anomaly_dino": {"image_size": 28, "backbone": VIT_S_14},
    "dinomaly": {"image_size": 28, "backbone": VIT_S_14_REG, "steps": 1},
    "inp_former": {"image_size": 28, "backbone": VIT_S_14_REG, "epochs": 1},
    "general_ad": {"image_size": 28, "backbone": VIT_S_14, "layers": (12,), "epochs": 1, "hidden": 16, "top_k": 1},
    "l2bt": {"image_size": 28, "backbone": VIT_S_14_REG, "epochs": 1},
    "foundad": {"image_size": 28, "backbone": VIT_S_14, "width": 48, "epochs": 1, "depth": 1},
    "rad": {"image_size": 32, "backbone": VIT_S_16},
    "super_add": {"image_size": 64, "backbone": VIT_S_16, "tile": 64},
    "winclip": {"image_size": 96, "backbone": "ViT-S-32-alt"},
    "vfm": {"image_size": 32, "depth": 1},
    "cfm": {"image_size": 32, "backbone": "vit_tiny_patch16_224", "groups": 16, "group_size": 4, "epochs": 1},
    "vlm_ad": {"endpoint": "http://localhost:11434/v1"},
}
# Their weights do not come with the package.
WITHOUT_WEIGHTS = {
    *("anomaly_dino", "dinomaly", "inp_former", "general_ad", "l2bt", "foundad", "rad", "super_add", "winclip"),
    *("vfm", "uninet", "cfm"),
}
# The largest learn from two images.
FROM_TWO = {"cfm", "draem", "dsr", "uninet", "efficient_ad_s", "efficient_ad_m"}
# Too large to be fitted twice in a test; efficient_ad_s, the same code with narrower networks, is, and winclip draws
# nothing at random but its weights.
ONCE = {"efficient_ad_m", "winclip"}
NAMES = sorted(name for name in zoo.cards() if name.startswith("anomalib_"))


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, 64 + 16 * (seed % 2)) for seed in range(6)]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a baseline tried to use the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def tiny(name: str, seed: int = 3) -> zoo.Method:
    if name == "anomalib_winclip":
        pytest.importorskip("open_clip")
    return zoo.create(name, seed=seed, **settings(name))


def as_relief(image: np.ndarray) -> np.ndarray:
    """An image and the position of each pixel, which is the higher the brighter."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return colored_points(image, np.stack([x, y, 1 + image.mean(2)], 2).astype(np.float32))


def settings(name: str) -> dict[str, Any]:
    short = name.removeprefix("anomalib_")
    weights = {"weights": "random"} if short in WITHOUT_WEIGHTS else {}
    # VLM-AD's service takes images of any size.
    side = {"image_size": 64} if "image_size" in zoo.options(name) else {}
    return {**side, **weights, **TINY[short]}


def test_every_method_has_tiny_settings() -> None:
    assert {name.removeprefix("anomalib_") for name in NAMES} == set(TINY)


@pytest.mark.parametrize("name", NAMES)
def test_fits_and_predicts_offline(name: str, offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    card, short = zoo.cards()[name], name.removeprefix("anomalib_")
    if short == "dsr":
        monkeypatch.setattr("fewshot_ad.zoo.anomalib.runtime.pretraining.PICTURES", 8)
    if short == "vlm_ad":
        monkeypatch.setattr("fewshot_ad.zoo.components.local_chat.LocalChat.ask", lambda *_: "YES: a blot")
    good = [real_part(place, (64, 96, 80, 112)[place % 4]) for place in range(2 if short in FROM_TWO else 6)]
    images = [real_part(6, 64), real_part(7, 96), real_part(8, 96, defect=True)[:, :80]]
    if card.needs_points:
        good, images = ([as_relief(image) for image in several] for several in (good, images))
    calls: list[tuple[str, int, int]] = []
    state = torch.get_rng_state()
    method = tiny(name)
    method.fit(good, progress=lambda *step: calls.append(step))
    predictions = method.predict(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert_progress(calls)
    assert predictions.scores.shape == (3,)
    assert predictions.scores.dtype == np.float32
    assert np.isfinite(predictions.scores).all()
    assert method.model_bytes() > 0
    if card.maps:
        assert predictions.maps is not None
        assert [m.shape for m in predictions.maps] == [p.shape[:2] for p in images]
        assert all(m.dtype == np.float32 and np.isfinite(m).all() for m in predictions.maps)
    else:
        assert predictions.maps is None
    stored = restored(name, method, settings(name), seed=3).predict(images)
    np.testing.assert_allclose(stored.scores, predictions.scores, rtol=1e-5)
    for heat, other in zip(stored.maps or (), predictions.maps or (), strict=True):
        np.testing.assert_allclose(heat, other, rtol=1e-4, atol=1e-5 * float(np.abs(other).max()))
    alone = method.predict(images[1:2])
    np.testing.assert_allclose(alone.scores, predictions.scores[1:2], rtol=1e-4, atol=1e-6)
    if short not in ONCE:
        second = tiny(name)
        second.fit(good)
        again = second.predict(images)
        np.testing.assert_array_equal(again.scores, predictions.scores)
        for heat, other in zip(again.maps or (), predictions.maps or (), strict=True):
            np.testing.assert_array_equal(heat, other)


@pytest.mark.parametrize("name", ["anomalib_patchcore", "anomalib_padim", "anomalib_dfm"])
def test_a_defect_scores_above_good_parts(name: str) -> None:
    method = tiny(name)
    method.fit([make_part(seed, 96) for seed in range(6)])
    predictions = method.predict([make_part(30, 96), make_part(31, 96), make_part(32, 96, defect=True)])
    assert predictions.scores[2] > predictions.scores[:2].max()
    assert predictions.maps is not None
    row, column = np.unravel_index(predictions.maps[2].argmax(), (96, 96))
    assert abs(row - 48) < 16
    assert abs(column - 72) < 16


@pytest.mark.parametrize("backbone", ["resnet18", "lite0"])
def test_anomalib_sees_the_features_of_our_backbone(backbone: str) -> None:
    from anomalib.models.components import TimmFeatureExtractor

    batch = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    extractor = TimmFeatureExtractor(timm_name(backbone, None), [2, 3])
    expected = Backbone(backbone, (2, 3))(batch)
    for theirs, ours in zip(extractor(standardize(batch)).values(), expected, strict=True):
        # Rounding: lite0 wants another mean and deviation than ImageNet's, which are put back in between.
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in extractor.parameters())


def test_weights_from_a_file(tmp_path: Any, good: list[np.ndarray]) -> None:
    file = tmp_path / "resnet18.pth"
    torch.save(Backbone("resnet18", (1, 2, 3)).network.state_dict(), file)
    mine = zoo.create("anomalib_padim", image_size=64, weights=str(file))
    at_hand = zoo.create("anomalib_padim", image_size=64)
    for method in (mine, at_hand):
        method.fit(good)
    np.testing.assert_array_equal(mine.predict(good).scores, at_hand.predict(good).scores)


def test_errors_say_what_to_do(good: list[np.ndarray]) -> None:
    with pytest.raises(WeightsError, match="weights=FILE"):
        zoo.create("anomalib_patchcore", backbone="wide_resnet50_2")
    with pytest.raises(WeightsError, match="Check the path"):
        zoo.create("anomalib_patchcore", backbone="wide_resnet50_2", weights="absent.pth")
    with pytest.raises(ZooError, match="at least 3"):
        zoo.create("anomalib_dfkde", image_size=64).fit(good[:2])
    padim = zoo.create("anomalib_padim", image_size=64)
    padim.fit(good[:1])
    with pytest.raises(ZooError, match="more images"):
        padim.predict(good)
    with pytest.raises(ZooError, match="epochs"):
        zoo.create("anomalib_stfpm", epochs=0)


def test_without_anomalib_the_cards_remain_and_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    assert zoo.cards()["anomalib_padim"].license == "Apache-2.0"
    with pytest.raises(ZooError, match=r"fewshot-ad\[zoo\]"):
        zoo.create("anomalib_padim")


def test_cflow_does_not_measure_an_image_by_itself() -> None:
    from fewshot_ad.zoo.anomalib.flows import _SupportScale

    scale = _SupportScale(2)
    good = [torch.linspace(-1, 0, 16), torch.linspace(-1, 0, 4)]
    heat = scale(good, [4, 2], [4, 2], (8, 8))
    scale.learning = False
    # As likely everywhere as the likeliest place of the support, and unlikely everywhere.
    fine = scale([torch.zeros(16), torch.zeros(4)], [4, 2], [4, 2], (8, 8))
    bad = scale([torch.full((16,), -9.0), torch.full((4,), -9.0)], [4, 2], [4, 2], (8, 8))
    assert heat.shape == (1, 8, 8)
    assert float(fine.max()) == pytest.approx(0)
    assert float(bad.min()) > 1.99
    assert 0 < float(heat.max()) < float(bad.min())


def test_dfm_by_likelihood_has_no_map(good: list[np.ndarray]) -> None:
    method = zoo.create("anomalib_dfm", image_size=64, score="nll")
    method.fit(good)
    predictions = method.predict([make_part(30, 96), make_part(32, 96, defect=True)])
    assert predictions.maps is None
    assert np.isfinite(predictions.scores).all()
    with pytest.raises(ZooError, match="'fre' or 'nll'"):
        zoo.create("anomalib_dfm", score="mse")
