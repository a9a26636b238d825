from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.pose import FeatureUnroller, pose, turned_parts, unroll_pixels
from fewshot_ad.enrollment.selection import TURNED_SHARE
from fewshot_ad.images import read_image


def _part(degrees: float, x: float = 79.5, y: float = 79.5) -> Uint8Array:
    """A lopsided part on a plain ground, its middle at (x, y)."""
    picture = np.full((160, 160, 3), 90, np.uint8)
    cv2.rectangle(picture, (40, 70), (125, 92), (200, 190, 180), -1)
    cv2.rectangle(picture, (40, 70), (62, 112), (150, 160, 200), -1)
    matrix = cv2.getRotationMatrix2D((79.5, 79.5), degrees, 1)
    matrix[:, 2] += (x - 79.5, y - 79.5)
    return cv2.warpAffine(picture, matrix, (160, 160), borderValue=(90, 90, 90))


@pytest.mark.parametrize("degrees", [0, 37, 118, 180, 291])
def test_pixels_find_any_turn_wherever_the_part_lies(degrees: float) -> None:
    found = pose(unroll_pixels(_part(degrees, 70, 88)), unroll_pixels(_part(0)))
    # OpenCV turns counter-clockwise for positive degrees, and so is the turn that brings it back counted.
    off = (found.angle + degrees) % 360
    assert min(off, 360 - off) <= 3
    assert found.correlation > 0.9


@pytest.mark.parametrize("degrees", [0, 90, 180])
def test_features_find_a_turn(degrees: float, encoder: Encoder) -> None:
    unroll = FeatureUnroller(encoder, _part(0))
    found = pose(unroll(_part(degrees)), unroll(_part(0)))
    off = (found.angle + degrees) % 360
    assert min(off, 360 - off) <= 12


def test_the_center_is_where_the_part_is() -> None:
    here, there = unroll_pixels(_part(0)), unroll_pixels(_part(0, 79.5 + 16, 79.5 - 8))
    assert there.x - here.x == pytest.approx(0.1, abs=0.01)
    assert there.y - here.y == pytest.approx(-0.05, abs=0.01)


def _square(degrees: float, seed: int) -> Uint8Array:
    picture = np.full((160, 160, 3), 60, np.uint8)
    cv2.rectangle(picture, (45, 45), (114, 114), (180, 180, 180), -1)
    matrix = cv2.getRotationMatrix2D((79.5, 79.5), degrees, 1)
    turned = cv2.warpAffine(picture, matrix, (160, 160), borderValue=(60, 60, 60)).astype(int)
    return np.clip(turned + np.random.default_rng(seed).normal(0, 4, turned.shape), 0, 255).astype(np.uint8)


def test_a_symmetric_part_in_a_jig_is_not_turned(encoder: Encoder) -> None:
    assert turned_parts([_square(d, n) for n, d in enumerate((0, 2, -2, 1, 0, -1))], encoder) == (0, 5)


@pytest.mark.parametrize("shape", [(80, 320), (320, 100)])
def test_long_images_have_a_pose_too(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 90, np.uint8)
    x, y = shape[1] // 5, shape[0] // 5
    cv2.rectangle(picture, (x, y), (x + 30, y + 12), (220, 200, 180), -1)
    first, again = unroll_pixels(picture), unroll_pixels(picture.copy())
    np.testing.assert_array_equal(first.rings, again.rings)
    assert np.isfinite(first.rings).all()
    assert first.x * shape[1] == pytest.approx(x + 15.5, abs=1.5)
    assert first.y * shape[0] == pytest.approx(y + 6.5, abs=1.5)
    assert (pose(again, first).angle, pose(again, first).margin) == (0, 0)


def test_parts_at_any_angle_are_counted_and_parts_in_a_jig_are_not(encoder: Encoder) -> None:
    assert turned_parts([_part(d) for d in (0, 75, 140, 250)], encoder) == (3, 3)
    assert turned_parts([_part(d, 79.5 + d, 75) for d in (0, 3, -4, 178)], encoder) == (0, 3)


def test_a_blank_image_has_no_pose_and_breaks_nothing(encoder: Encoder) -> None:
    blank = np.full((120, 90, 3), 128, np.uint8)
    assert turned_parts([blank, blank, _part(30)], encoder) == (0, 2)
    assert (unroll_pixels(blank).x, unroll_pixels(blank).y) == (0.5, 0.5)


@pytest.mark.parametrize("product", ["bottle", "alien_toy", "elpv_mono", "magnetic_tile"])
def test_real_parts_that_lie_straight_are_not_taken_for_turned(
    product: str, encoder: Encoder, shared_data: Path
) -> None:
    files = sorted((shared_data / product / "train" / "good").iterdir())[:6]
    turned, compared = turned_parts([read_image(file) for file in files], encoder)
    assert turned < TURNED_SHARE * compared
