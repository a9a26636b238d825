"""CFM: color and position of each pixel reach anomalib's model, and shape and look must go together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fewshot_ad import zoo
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.components.colored_points import colored_points, points_batch
from fewshot_ad.zoo.components.tensors import seeded, standardize
from tests.conftest import make_part

pytest.importorskip("anomalib")

NAME = "anomalib_cfm"
TINY: dict[str, Any] = {"image_size": 32, "backbone": "vit_tiny_patch16_224", "weights": "random"}
TINY |= {"groups": 32, "group_size": 8, "epochs": 1}


def scan(seed: int, blot: bool = False) -> np.ndarray:
    """A washer whose color says how high it is, on a table that the scanner does not see."""
    image = make_part(seed, 64)
    y, x = np.mgrid[:64, :64] / 64 - 0.5
    height = 0.2 * cv2.GaussianBlur(image.mean(2) / 255, (0, 0), 1)
    points = 10 * np.stack([x, y, 1 - height], 2).astype(np.float32)
    points[np.hypot(x, y) > 0.45] = 0
    if blot:
        cv2.circle(image, (48, 32), 6, (200, 20, 20), -1)
    return colored_points(image, points)


@pytest.fixture(scope="module")
def method() -> Iterator[Any]:
    fitted = zoo.create(NAME, seed=1, **TINY | {"epochs": 6})
    fitted.fit([scan(seed) for seed in range(2)])
    with torch.no_grad():
        yield fitted


def test_a_color_that_the_shape_does_not_foretell_is_found(method: Any) -> None:
    scores = method.predict([scan(10), scan(11), scan(12, blot=True)]).scores
    assert scores[2] > 1.3 * scores[:2].max()


def test_map_is_the_product_of_the_two_distances(method: Any) -> None:
    image = scan(12, blot=True)
    batch = points_batch(NAME, [image], 32)
    model = method._model
    with seeded(1):
        color, shape = model.extract_features(standardize(batch[:, :3]), batch[:, 3:])

    def distance(real: torch.Tensor, foretold: torch.Tensor) -> torch.Tensor:
        real, foretold = (v / v.norm(dim=1, keepdim=True).clamp_min(1e-12) for v in (real, foretold))
        return (real - foretold).norm(dim=1)[0]

    product = distance(color, model.xyz_to_rgb_mapper(shape)) * distance(shape, model.rgb_to_xyz_mapper(color))
    # Next to no position there is nothing to compare.
    product *= cv2.dilate((image[::2, ::2, 5] > 0).astype(np.float32), np.ones((3, 3)))
    kernel = cv2.getGaussianKernel(13, 4.0).astype(np.float32)
    expected = cv2.sepFilter2D(product.numpy(), -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    heat = cv2.resize(expected, (64, 64))
    np.testing.assert_allclose(method.predict([image]).maps[0], heat, rtol=1e-3, atol=1e-5)


def test_each_image_is_judged_as_if_it_came_alone(method: Any) -> None:
    images = [scan(10), scan(12, blot=True)]
    alone = [float(method.predict([image]).scores[0]) for image in images]
    np.testing.assert_array_equal(method.predict(images).scores, np.array(alone, np.float32))


def test_point_mae_is_read_from_its_file(tmp_path: Path, method: Any) -> None:
    state = method._model.feature_extractors.extractors.xyz_backbone.state_dict()
    file, other = tmp_path / "pretrain.pth", tmp_path / "other.pth"
    torch.save({"base_model": {f"module.MAE_encoder.{key}": 0.5 * v for key, v in state.items()}, "epoch": 3}, file)
    torch.save({"base_model": {"module.MAE_encoder.norm.weight": torch.ones(384)}}, other)
    blank = zoo.create(NAME, points_weights=str(file), **TINY).skeleton()["_model"]  # type: ignore[attr-defined]
    loaded = blank.feature_extractors.extractors.xyz_backbone.state_dict()
    torch.testing.assert_close(loaded, {key: 0.5 * v for key, v in state.items()}, check_dtype=False)
    with pytest.raises(WeightsError, match="lacks"):
        zoo.create(NAME, points_weights=str(other), **TINY).skeleton()  # type: ignore[attr-defined]


def test_images_without_positions_are_refused(method: Any) -> None:
    with pytest.raises(ZooError, match=rf"{NAME}.*\(H, W, 6\).*\(64, 64, 3\)"):
        method.predict([make_part(0, 64)])
    nothing = scan(0)
    nothing[..., 3:] = 0
    with pytest.raises(ZooError, match=r"at least 32 positions.*got 0"):
        method.predict([nothing])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet18"}, "transformer"),
        ({"image_size": 40}, "patch of 16"),
        ({"groups": 0}, "groups"),
        ({"points_weights": "absent.pth"}, "Check the path"),
        ({"weights": None, "points_weights": "random"}, "weights=FILE"),
        ({"weights": "absent.pth"}, "Check the path"),
    ],
)
def test_errors_say_what_to_do(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ZooError, WeightsError), match=message):
        zoo.create(NAME, **TINY | settings).fit([scan(0)])


def test_the_card_says_what_its_images_are() -> None:
    assert zoo.cards()[NAME].needs_points
    assert not zoo.cards()["patchcore"].needs_points
