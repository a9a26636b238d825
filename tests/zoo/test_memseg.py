from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.memseg import MemSeg, blended, disordered, rate, segmentation_loss
from tests.conftest import make_part

SETTINGS = {"image_size": 64, "steps": 20, "batch_size": 4}


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=96) for seed in range(4)]


@pytest.fixture(scope="module")
def fitted(good: list[np.ndarray]) -> MemSeg:
    method = create("memseg", **SETTINGS)
    method.fit(good)
    return method  # type: ignore[return-value]


def test_defect_scores_above_good_and_is_found(fitted: MemSeg) -> None:
    predictions = fitted.predict([make_part(50, size=96), make_part(100, size=96, defect=True)])
    assert predictions.scores[1] > 1.5 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (96, 96))
    assert np.hypot(y - 48, x - 72) < 18


def test_memory_holds_so_many_images_and_the_encoder_stays(good: list[np.ndarray], fitted: MemSeg) -> None:
    assert fitted._memory is not None
    assert [len(level) for level in fitted._memory] == [4, 4, 4]
    method = create("memseg", **SETTINGS | {"memory": 2, "steps": 1})
    before = {key: tensor.clone() for key, tensor in method._encoder.state_dict().items()}  # type: ignore[attr-defined]
    method.fit(good)
    assert [len(level) for level in method._memory] == [2, 2, 2]  # type: ignore[attr-defined]
    for key, tensor in method._encoder.state_dict().items():  # type: ignore[attr-defined]
        torch.testing.assert_close(tensor, before[key])


def test_samples_are_half_good_and_changed_within_their_masks(good: list[np.ndarray]) -> None:
    method: MemSeg = create("memseg", **SETTINGS, shift=0.0, rotation=0.0)  # type: ignore[assignment]
    images = [make_part(seed, size=64) for seed in range(4)]
    texture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    batch, masks = method._samples(images, [texture], np.random.default_rng(1))
    originals = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(batch[:2], originals[:2])
    assert not masks[:2].any()
    assert all(mask.any() for mask in masks[2:])
    outside = masks[2:].expand_as(batch[2:]) == 0
    torch.testing.assert_close(batch[2:][outside], originals[2:][outside])
    assert (batch[2:] != originals[2:]).any()


def test_tiles_change_places_and_none_is_lost() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    other = disordered(image, np.random.default_rng(1))
    assert (other != image).any()

    def tiles(picture: np.ndarray) -> list[bytes]:
        return sorted(picture[y : y + 8, x : x + 4].tobytes() for y in range(0, 32, 8) for x in range(0, 32, 4))

    assert tiles(other) == tiles(image)


def test_blending_loss_and_rate_by_hand() -> None:
    image, source = np.full((1, 2, 3), 100, np.uint8), np.full((1, 2, 3), 200, np.uint8)
    mixed = blended(image, source, np.array([[True, False]]), 0.25)
    assert mixed[0, :, 0].tolist() == [125, 100]
    probability, mask = np.array([0.8, 0.3]), np.array([1.0, 0.0])
    right = np.array([0.8, 0.7])
    expected = 0.6 * np.abs(probability - mask).mean() + 0.4 * ((1 - right) ** 4 * -np.log(right)).mean()
    logits = torch.from_numpy(np.log(probability / (1 - probability)))
    assert float(segmentation_loss(logits, torch.from_numpy(mask))) == pytest.approx(expected)
    rates = [rate(step, 100) for step in range(100)]
    assert rates.index(max(rates)) == 10
    assert max(rates) == 1
    assert rates[0] < 0.1
    assert rates[-1] == pytest.approx(1 / 30, abs=0.01)


def test_one_image_is_enough(good: list[np.ndarray]) -> None:
    method = create("memseg", **SETTINGS)
    method.fit(good[:1])
    scores = method.predict([make_part(50, size=96), make_part(100, size=96, defect=True)]).scores
    assert scores[1] > scores[0]


@pytest.mark.parametrize(
    "wrong", [{"image_size": 100}, {"batch_size": 1}, {"memory": 0}, {"rotation": 181}, {"learning_rate": 0}]
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("memseg", **wrong)


def test_a_backbone_of_other_strides_is_refused() -> None:
    with pytest.raises(ZooError, match="strides"):
        create("memseg", backbone="convnext_atto", weights="random")
