from __future__ import annotations

import cv2
import numpy as np
import pytest

from fewshot_ad.zoo.components.image_jitter import moved, recolored
from tests.conftest import make_part


def test_without_range_nothing_changes() -> None:
    image = make_part(0, size=48)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(moved(image, rng, 0.0), image)
    # Hue goes through whole numbers.
    assert np.abs(recolored(image, rng, 0.0).astype(int) - image).max() <= 3


def test_moves_stay_in_range() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    cv2.circle(image, (32, 32), 3, (255, 255, 255), -1)
    rng = np.random.default_rng(0)
    centers = []
    for _ in range(50):
        view = moved(image, rng, 0.1)[..., 0].astype(float)
        y, x = (np.average(axis, weights=view) for axis in np.mgrid[:64, :64])
        centers.append((y - 32, x - 32))
    reached = np.abs(centers).max(0)
    assert (reached < 6.5).all()
    assert (reached > 4).all()


def test_brightness_and_contrast_stay_in_range() -> None:
    gray = np.full((8, 8, 3), 120, np.uint8)
    rng = np.random.default_rng(0)
    levels = [recolored(gray, rng, 0.1).mean() for _ in range(50)]
    assert min(levels) == pytest.approx(108, abs=3)
    assert max(levels) == pytest.approx(132, abs=3)
