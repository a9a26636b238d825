from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fewshot_ad.images import SMOOTHING, Geometry, inside_patches


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), (0, 0), 2)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(16, 900), width=st.integers(16, 900), size=st.sampled_from([64, 256, 384]))
def test_geometry_keeps_aspect_and_maps_back(height: int, width: int, size: int) -> None:
    geometry = Geometry.fit((height, width), size, 16)
    scale_x, scale_y = geometry.scale_xy()
    content_h, content_w = geometry.content_hw
    if min(content_h, content_w) > 16:
        # To within the rounding of a side to whole pixels.
        assert abs(scale_x / scale_y - 1) <= 0.5 / content_h + 0.5 / content_w + 1e-9
        assert content_h * content_w == pytest.approx(size * size, rel=0.1)
    assert all(side % 16 == 0 for side in geometry.input_hw)
    assert geometry.to_input(np.zeros((height, width, 3), np.uint8)).shape[:2] == geometry.input_hw


def test_a_dot_comes_back_to_its_place() -> None:
    image = np.zeros((500, 1250, 3), np.uint8)
    cv2.circle(image, (1100, 90), 25, (255, 255, 255), -1)
    geometry = Geometry.fit((500, 1250), 256, 16)
    back = geometry.crop(geometry.to_input(image)[..., 0].astype(np.float32))
    assert back.shape == geometry.content_hw
    back = cv2.resize(back, (1250, 500), interpolation=cv2.INTER_LINEAR)
    rows, columns = np.nonzero(back > 128)
    assert rows.mean() == pytest.approx(90, abs=2)
    assert columns.mean() == pytest.approx(1100, abs=2)


def test_shrinking_averages_like_pil(image: np.ndarray) -> None:
    big = cv2.resize(image, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    ours = Geometry.fit((1024, 1024), 256, 16).to_input(big).astype(int)
    pil = np.asarray(Image.fromarray(big).resize((256, 256), Image.Resampling.BOX))
    expected = cv2.GaussianBlur(pil, (5, 5), SMOOTHING).astype(int)
    assert np.abs(ours - expected).max() <= 1


def test_inside_patches_whole_or_partly() -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :20] = 255
    np.testing.assert_array_equal(inside_patches(mask, (4, 4))[0], [True, True, False, False])
    np.testing.assert_array_equal(inside_patches(mask, (4, 4), partly=True)[0], [True, True, True, False])
