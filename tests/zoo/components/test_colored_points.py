from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.colored_points import colored_points, points_batch
from fewshot_ad.zoo.components.tensors import to_batch
from tests.conftest import make_part


def test_colors_are_averaged_and_positions_are_those_of_the_scanner() -> None:
    image = make_part(0, 64)
    points = np.random.default_rng(0).normal(size=(64, 64, 3)).astype(np.float32)
    points[:20] = 0
    batch = points_batch("some", [colored_points(image, points)], 16)
    assert batch.shape == (1, 6, 16, 16)
    np.testing.assert_array_equal(batch[:, :3], to_batch([image], 16))
    found = batch[0, 3:].permute(1, 2, 0).reshape(-1, 3).numpy()
    known = {tuple(point) for point in points.reshape(-1, 3)}
    assert all(tuple(point) in known for point in found)
    assert not batch[0, 3:, :5].any()


def test_images_without_or_with_too_few_positions_are_refused() -> None:
    with pytest.raises(ZooError, match="at least one image"):
        points_batch("some", [], 16)
    with pytest.raises(ZooError, match=r"some: expected color and position.*mvtec_3d"):
        points_batch("some", [make_part(0, 64)], 16)
    few = colored_points(make_part(0, 64), np.zeros((64, 64, 3), np.float32))
    with pytest.raises(ZooError, match="at least 5 positions in an image of 16 x 16, got 0"):
        points_batch("some", [few], 16, least=5)
