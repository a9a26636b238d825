from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import ArgumentError, ImageError
from fewshot_ad.images import Geometry, RegionOfInterest, drawn_weights, patch_cares
from fewshot_ad.images.region_of_interest import LONGEST

HW = (60, 80)


def test_a_box_counts_the_pixels_it_names() -> None:
    weights = drawn_weights((10, 20, 30, 5), None, HW)
    expected = np.zeros(HW, np.uint8)
    expected[20:25, 10:40] = 255
    np.testing.assert_array_equal(weights, expected)


def test_shapes_join_and_what_is_ignored_is_cut_out() -> None:
    one, other = drawn_weights((0, 0, 10, 10), None, HW), drawn_weights([(40, 40), (70, 40), (40, 55)], None, HW)
    both = drawn_weights([(0, 0, 10, 10), [(40, 40), (70, 40), (40, 55)]], None, HW)
    np.testing.assert_array_equal(both, np.maximum(one, other))
    rest = drawn_weights(None, (0, 0, 10, 10), HW)
    np.testing.assert_array_equal(rest, 255 - one)
    np.testing.assert_array_equal(drawn_weights([(0, 0, 10, 10), (20, 20, 4, 4)], [(0, 0, 10, 10)], HW)[:10, :10], 0)


def test_a_mask_may_be_a_file_an_array_or_bool(tmp_path: Path) -> None:
    mask = np.zeros(HW, bool)
    mask[:30] = True
    cv2.imwrite(str(tmp_path / "mask.png"), mask.astype(np.uint8) * 255)
    for given in (mask, tmp_path / "mask.png", str(tmp_path / "mask.png"), mask.astype(np.uint8) * 255):
        np.testing.assert_array_equal(drawn_weights(given, None, HW), mask * np.uint8(255))
    half = np.full(HW, 128, np.uint8)
    assert (drawn_weights(half, None, HW) == 128).all()
    assert drawn_weights(np.ones((120, 160), bool), None, HW).shape == HW


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ((1, 2, 3), "3 number"),
        ((1, 2, 0, 4), "roi as a finite number above 0"),
        ([(1, 2), (3, 4)], "2 corner"),
        ([(1, 2), 3], "expected a region"),
        ([], "expected a region"),
        ((1, 2, "a", 4), "roi as a finite number"),
        ((500, 500, 4, 4), "shows some of the image of 80 x 60"),
        (np.ones((60, 60), bool), "proportions"),
        (np.zeros(HW, bool), "shows some"),
        (np.ones(HW, np.uint8), "Multiply it by 255"),
    ],
)
def test_what_is_no_region_is_refused_in_words(region: object, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        drawn_weights(region, None, HW)  # type: ignore[arg-type]


def test_a_mask_that_does_not_exist_is_named() -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        drawn_weights("nowhere.png", None, HW)


def test_stored_and_read_again_it_is_the_same() -> None:
    weights = drawn_weights([(3, 4), (70, 10), (30, 55)], None, HW)
    roi = RegionOfInterest.of(weights, HW)
    np.testing.assert_array_equal(RegionOfInterest(HW, roi.png).weights, weights)
    assert roi.share == pytest.approx((weights > 0).mean())
    large = RegionOfInterest.of(np.full((3000, 4000), 255, np.uint8), (3000, 4000))
    assert max(large.weights.shape) == LONGEST
    with pytest.raises(ArgumentError, match="without any"):
        RegionOfInterest.of(np.zeros(HW, np.uint8), HW)


def test_patches_count_from_half_of_them_on() -> None:
    cares = np.zeros((32, 32), np.uint8)
    cares[:, 4:] = 255  # half of the first column of patches
    cares[:, 28:] = 0
    cares[:8, :] = 51
    expected = np.ones((4, 4), np.float32)
    expected[0] = 0.2
    np.testing.assert_allclose(patch_cares(cares, (32, 32), (4, 4)), expected, atol=1e-6)
    cares[:, 4] = 0
    assert (patch_cares(cares, (32, 32), (4, 4))[1:, 0] == 0).all()


def test_narrowed_on_the_image_it_follows_the_turn_and_comes_back() -> None:
    turned = Geometry.fit((128, 128), 128, 32).with_turn(
        np.vstack([cv2.getRotationMatrix2D((63.5, 63.5), 90, 1.0)]).astype(np.float64)
    )
    drawn = drawn_weights((10, 20, 30, 16), None, (128, 128))
    narrowed = turned.narrowed(drawn)
    # A quarter turn counterclockwise: what lies at (x, y) comes to (y, 127 - x).
    expected = np.rot90(drawn)
    assert np.abs(narrowed.cares().astype(int) - expected).mean() < 1
    assert np.abs(narrowed.cares_as_it_lies().astype(int) - drawn).mean() < 1
    with pytest.raises(ArgumentError, match="without any"):
        narrowed.narrowed(drawn_weights((100, 100, 5, 5), None, (128, 128)))


def test_proportions_decide_whether_it_fits() -> None:
    roi = RegionOfInterest.of(np.full((60, 80), 255, np.uint8), (60, 80))
    assert roi.fits((600, 800))
    assert roi.fits((601, 799))
    assert not roi.fits((800, 600))
