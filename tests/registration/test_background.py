from __future__ import annotations

import cv2
import numpy as np
import pytest

from fewshot_ad.registration import unlike_background
from tests.trays import tray


def uneven(seed: int = 0) -> np.ndarray:
    """A table that light falls off across, without anything on it."""
    return tray(seed, ())


def test_an_uneven_light_is_background_and_a_part_is_not() -> None:
    image = uneven()
    assert unlike_background(image) is not None
    assert not unlike_background(image).any()
    cv2.rectangle(image, (200, 150), (299, 249), (120, 120, 130), -1)
    unlike = unlike_background(image)
    inside = np.zeros(image.shape[:2], bool)
    inside[150:250, 200:300] = True
    assert (unlike == inside).mean() > 0.999


def test_a_part_across_the_border_does_not_bend_the_surface() -> None:
    image = uneven()
    cv2.rectangle(image, (0, 100), (80, 180), (40, 40, 40), -1)
    unlike = unlike_background(image)
    assert unlike[100:181, 0:81].all()
    assert not unlike[:, 90:].any()


def test_the_surface_is_the_least_squares_one_where_nothing_lies_on_it() -> None:
    """Held to numpy's solver: what is off by less than its limit, and by more, is the same."""
    image = np.zeros((96, 128, 3), np.uint8)
    y, x = np.mgrid[-1 : 1 : 96 * 1j, -1 : 1 : 128 * 1j]
    image[...] = np.rint(150 + 20 * x - 10 * y + 8 * x * y - 6 * y * y)[..., None]
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(float)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    border = np.ones((96, 128), bool)
    border[3:-3, 3:-3] = False
    surface = terms @ np.linalg.lstsq(terms[border], lab[border], rcond=None)[0]
    for off, expected in ((4, False), (16, True)):
        raised = image.copy()
        raised[40:60, 50:70] = np.clip(raised[40:60, 50:70] + off, 0, 255)
        by_hand = (np.abs(cv2.cvtColor(raised, cv2.COLOR_RGB2LAB) - surface) > 10.5).any(axis=2)
        assert by_hand[40:60, 50:70].all() == expected
        assert np.array_equal(unlike_background(raised), by_hand)


@pytest.mark.parametrize("seed", range(3))
def test_a_border_that_is_not_plain_is_told(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, (200, 240, 3)).astype(np.uint8)
    assert unlike_background(noise) is None
