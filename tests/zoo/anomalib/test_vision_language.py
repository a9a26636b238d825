"""WinCLIP+ and AnomalyVFM: windows as the paper cuts them, weights from a file, and errors that say what to do.

That they fit and predict offline, seeded and in the images' sizes is in test_methods.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fewshot_ad import zoo
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.components.tensors import standardize
from tests.conftest import make_part

pytest.importorskip("anomalib")
open_clip = pytest.importorskip("open_clip")

SMALL: dict[str, Any] = {"backbone": "ViT-S-32-alt", "image_size": 96}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def clip() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return open_clip.create_model("ViT-S-32-alt", pretrained=None).eval()


@pytest.fixture(scope="module")
def clip_file(clip: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """For 224 pixels, so that it has 7 x 7 patches where the method under test has 3 x 3."""
    file = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file({f"module.{k}": v.contiguous() for k, v in clip.state_dict().items()}, file)
    return str(file)


@pytest.fixture(scope="module")
def model(clip_file: str) -> Iterator[Any]:
    """What WinCLIP+ is after its fit to two images, in batches of one."""
    method = zoo.create("anomalib_winclip", weights=clip_file, class_name="metal disc", batch_size=1, **SMALL)
    method.fit([make_part(0, 96), make_part(1, 96)])
    with torch.no_grad():
        yield method._model  # type: ignore[attr-defined]


def as_batch(*parts: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).float() / 255


def test_weights_come_from_the_file_and_positions_are_resized(model: Any, clip: Any) -> None:
    assert model.grid_size == (3, 3)
    ours, theirs = model.clip.state_dict(), clip.state_dict()
    assert ours["visual.positional_embedding"].shape == (10, 384)
    for key in theirs.keys() - {"visual.positional_embedding"}:
        torch.testing.assert_close(ours[key], theirs[key])


def test_a_window_sees_its_patches_and_nothing_else(model: Any) -> None:
    image, (twos, threes), _ = model.encode_image(as_batch(make_part(2, 96), make_part(3, 96)))
    assert (twos.shape, threes.shape) == ((2, 4, 256), (2, 1, 256))
    # The one window of 3 x 3 patches is the whole image.
    torch.testing.assert_close(threes[:, 0], image, rtol=1e-4, atol=1e-5)

    changed = make_part(2, 96).copy()
    changed[64:, 64:] = 255 - changed[64:, 64:]
    _, (before, _), _ = model.encode_image(as_batch(make_part(2, 96)))
    _, (after, _), _ = model.encode_image(as_batch(changed))
    torch.testing.assert_close(after[0, :3], before[0, :3], rtol=1e-4, atol=1e-5)
    assert (after[0, 3] - before[0, 3]).abs().max() > 1e-3


def test_text_is_the_mean_of_the_prompts_of_the_class(model: Any, clip: Any) -> None:
    from anomalib.models.image.winclip.prompting import create_prompt_ensemble

    prompts = create_prompt_ensemble("metal disc")
    assert all("metal disc" in prompt for prompt in prompts[0] + prompts[1])
    tokens = open_clip.get_tokenizer("ViT-S-32-alt")(prompts[1])
    with torch.no_grad():
        torch.testing.assert_close(model.text_embeddings[1], clip.encode_text(tokens).mean(0), rtol=1e-3, atol=1e-5)


def test_scores_are_the_papers(model: Any) -> None:
    """Zero-shot: softmax over the two texts. WinCLIP+: its mean with the map's greatest distance to a reference."""
    references = as_batch(make_part(0, 96), make_part(1, 96))
    query = as_batch(make_part(4, 96, defect=True))
    image, (twos, threes), patches = model.encode_image(query)
    _, (their_twos, their_threes), their_patches = model.encode_image(references)

    def unit(x: torch.Tensor) -> torch.Tensor:
        return x / x.norm(dim=-1, keepdim=True)

    def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (1 - unit(x[0]) @ unit(y.flatten(0, 1)).T).min(1).values / 2

    def spread(values: torch.Tensor) -> torch.Tensor:
        """Harmonic mean, for each of 3 x 3 patches, of the windows of 2 x 2 that hold it."""
        means = torch.zeros(3, 3)
        for row in range(3):
            for column in range(3):
                over = [
                    values[2 * r + c] for r in range(2) for c in range(2) if r <= row <= r + 1 and c <= column <= c + 1
                ]
                means[row, column] = len(over) / sum(1 / v for v in over)
        return means

    zero_shot = torch.softmax(unit(image) @ unit(model.text_embeddings).T / 0.07, -1)[0, 1]
    few_shot = torch.stack(
        [
            distance(patches, their_patches).reshape(3, 3),
            spread(distance(twos, their_twos)),
            distance(threes, their_threes).expand(3, 3),
        ]
    ).mean(0)
    output = model(query)
    torch.testing.assert_close(output.pred_score[0], (zero_shot + few_shot.max()) / 2, rtol=1e-4, atol=1e-5)
    assert output.anomaly_map.shape == (1, 96, 96)


def test_input_is_standardized_as_clip_wants_it(model: Any) -> None:
    batch = as_batch(make_part(6, 96))
    expected, _ = model.clip.encode_image(standardize(batch, CLIP_MEAN, CLIP_STD))
    torch.testing.assert_close(model.encode_image(batch)[0], expected)


def test_references_are_all_images_and_known_ones_are_at_no_distance(model: Any) -> None:
    assert model.k_shot == 2
    assert model.patch_embeddings.shape[:2] == (2, 9)
    _, windows, patches = model.encode_image(as_batch(make_part(1, 96)))
    few_shot = model._compute_few_shot_scores(patches, windows)
    assert few_shot.abs().max() < 1e-4


def test_vfm_takes_weights_from_a_file_and_nothing_from_images(tmp_path: Path) -> None:
    tiny: dict[str, Any] = {"image_size": 32, "depth": 1}
    images = [make_part(4, 96, defect=True)]
    first = zoo.create("anomalib_vfm", seed=1, weights="random", **tiny)
    first.fit([make_part(0, 64)])
    file = tmp_path / "model.safetensors"
    state = first._model.state_dict()  # type: ignore[attr-defined]
    assert {"model.net.model.blocks.0.attn.qkv.layer.weight", "decoder.final.weight", "predictor.lin.weight"} <= set(
        state
    )
    save_file({k: v.contiguous() for k, v in state.items()}, file)
    second = zoo.create("anomalib_vfm", seed=2, weights=str(file), **tiny)
    second.fit([make_part(1, 96), make_part(2, 96)])
    np.testing.assert_array_equal(second.predict(images).scores, first.predict(images).scores)


def test_cards_say_what_the_weights_are() -> None:
    for name in ("anomalib_winclip", "anomalib_vfm"):
        card = zoo.cards()[name]
        assert card.weights.startswith("Not at hand: weights=FILE")
        assert card.needs_internet
        assert not card.trains
    assert zoo.cards()["anomalib_winclip"].family == "vision-language"
    assert zoo.cards()["anomalib_vfm"].supervision == "none"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("anomalib_winclip", {"backbone": "RN50"}, "ViT-B-16-plus-240"),
        ("anomalib_winclip", {"backbone": "hf-hub:some/model"}, "ViT-B-16-plus-240"),
        ("anomalib_winclip", {"backbone": "ViT-B-16-SigLIP"}, "ViT-B-16-plus-240"),
        ("anomalib_winclip", {"image_size": 32}, "at least 48"),
        ("anomalib_winclip", {"image_size": 250}, "patch of 16"),
        ("anomalib_winclip", {"class_name": " "}, "class_name"),
        ("anomalib_winclip", {"scales": (2,)}, "scales"),
        ("anomalib_winclip", {"weights": "absent.pt"}, "Check the path"),
        ("anomalib_vfm", {"weights": "absent.safetensors"}, "Check the path"),
        ("anomalib_vfm", {"image_size": 100}, "patch of 16"),
        ("anomalib_vfm", {"depth": 25}, "depth"),
    ],
)
def test_errors_say_what_to_do(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ZooError, WeightsError), match=message):
        zoo.create(name, **settings)


def test_weights_of_another_clip_are_refused(clip_file: str) -> None:
    method = zoo.create("anomalib_winclip", weights=clip_file, backbone="ViT-S-32", image_size=96)
    with pytest.raises(WeightsError, match="backbone="):
        method.fit([make_part(0, 64)])


def test_without_open_clip_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "open_clip" else object())
    with pytest.raises(ZooError, match=r"open_clip.*fewshot-ad\[zoo\]"):
        zoo.create("anomalib_winclip")
