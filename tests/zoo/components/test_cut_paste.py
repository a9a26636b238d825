from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad.zoo.components.cut_paste import cut_paste, cut_paste_scar

SIDE = 128


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Every pixel has a color of its own."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([2 * y, 2 * x, np.zeros_like(y)], -1).astype(np.uint8)


def changed_box(image: np.ndarray, other: np.ndarray) -> tuple[slice, slice]:
    mask = (image != other).any(2)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def test_a_rectangle_of_the_image_appears_elsewhere(image: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        pasted = cut_paste(image, rng, 0.0)
        box = changed_box(image, pasted)
        height, width = (part.stop - part.start for part in box)
        # The whole rectangle is shifted by the same number of pixels; its colors went through whole hues.
        shift = pasted[box].astype(int) - image[box]
        assert np.abs(shift[..., :2] - np.median(shift[..., :2], (0, 1))).max() <= 12
        assert 0.015 < height * width / SIDE**2 < 0.16
        assert 0.28 < width / height < 3.5


def test_a_scar_is_small_and_no_larger_than_published(image: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(30):
        areas.append((cut_paste_scar(image, rng, 0.1) != image).any(2).sum())
    # Published sizes are 2 to 16 by 10 to 25 pixels of 256; the image has half that side.
    assert min(areas) >= 0.5 * (1 * 5)
    assert max(areas) <= 1.3 * (8 * 13)


def test_the_input_stays_as_it_is_and_the_generator_decides(image: np.ndarray) -> None:
    before = image.copy()
    for paste in (cut_paste, cut_paste_scar):
        first, second = (paste(image, np.random.default_rng(3), 0.1) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert (first != image).any()
    np.testing.assert_array_equal(image, before)
