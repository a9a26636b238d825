from __future__ import annotations

import cv2
import numpy as np
import pytest

from fewshot_ad.enrollment.parts import find_parts
from fewshot_ad.enrollment.support import read_support
from fewshot_ad.errors import ArgumentError
from fewshot_ad.registration.blobs import at_find_scale, blobs_of, in_rows, side_of
from fewshot_ad.registration.parts import PartLayout, cut_out
from fewshot_ad.registration.template import Template, parted, pictured
from tests.trays import PLACES, tray


@pytest.fixture(scope="module")
def layout() -> PartLayout:
    return find_parts(read_support([tray(seed) for seed in range(3)]), 6).layout


def test_each_part_is_found_where_it_lies_row_by_row(layout: PartLayout) -> None:
    cut = cut_out(tray(10), layout)
    assert (len(cut.parts), cut.others, cut.reason) == (6, (), "")
    for part, (x, y) in zip(cut.parts, PLACES, strict=True):
        left, top, width, height = part.box
        assert abs(left + width / 2 - x) < 20
        assert abs(top + height / 2 - y) < 20


@pytest.mark.parametrize("turn", [0.0, 33.0, 90.0, 145.0, 180.0, 271.5, 340.0])
def test_a_part_looks_the_same_however_it_is_turned(layout: PartLayout, turn: float) -> None:
    upright = cut_out(tray(20, turns=(0.0,) * 6), layout).parts
    turned = cut_out(tray(20, turns=(turn,) * 6), layout).parts
    for one, other in zip(upright, turned, strict=True):
        assert one.pixels is not None
        assert other.pixels is not None
        assert one.pixels.shape == other.pixels.shape
        # To within a pixel along edges: the noise alone differs by 2 gray levels.
        difference = np.abs(one.pixels.astype(int) - other.pixels).mean()
        assert difference < 3.5
        read = np.degrees(np.arctan2(other.forward[1, 0], other.forward[0, 0]))
        known = np.degrees(np.arctan2(one.forward[1, 0], one.forward[0, 0])) + turn
        assert abs((read - known + 180) % 360 - 180) < 1.5


@pytest.mark.parametrize("factor", [0.75, 1.5, 2.0])
def test_images_of_another_size_give_the_same_parts_in_their_own_size(layout: PartLayout, factor: float) -> None:
    image = tray(30)
    other = cv2.resize(
        image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    )
    for one, two in zip(cut_out(image, layout).parts, cut_out(other, layout).parts, strict=True):
        assert np.allclose(np.array(two.pixels.shape[:2]) / one.pixels.shape[:2], factor, atol=0.02)
        back = cv2.resize(two.pixels, one.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(back.astype(int) - one.pixels).mean() < 4


def test_a_darker_and_tinted_light_finds_the_same_parts(layout: PartLayout) -> None:
    image = tray(31)
    expected = [part.box for part in cut_out(image, layout).parts]
    for gains in ((0.7, 0.7, 0.7), (1.1, 1.0, 0.85)):
        lit = np.clip(np.rint(image * np.array(gains)), 0, 255).astype(np.uint8)
        found = [part.box for part in cut_out(lit, layout).parts]
        assert np.abs(np.array(found) - expected).max() <= 4


def test_parts_that_touch_are_told_apart(layout: PartLayout) -> None:
    # The long sides of two upright brackets meet.
    image = tray(40, ((150, 200), (232, 200), (430, 200)), turns=(0.0, 0.0, 45.0))
    content = at_find_scale(image)
    assert len(blobs_of(content)) == 2
    cut = cut_out(image, layout)
    assert len(cut.parts) == 3
    assert all(part.pixels is not None for part in cut.parts)


def test_what_cannot_be_told_apart_is_one_that_cannot_be_judged(layout: PartLayout) -> None:
    image = tray(41, ((430, 200),))
    cv2.circle(image, (150, 200), 80, (70, 80, 110), -1)
    cut = cut_out(image, layout)
    assert [bool(part.reason) for part in cut.parts] == [True, False]
    assert "touch" in cut.parts[0].reason


def test_a_part_at_the_edge_is_not_judged_and_a_small_thing_is_no_part(layout: PartLayout) -> None:
    image = tray(42, ((20, 110), (280, 200)))
    cv2.circle(image, (450, 320), 9, (200, 60, 60), -1)
    cut = cut_out(image, layout)
    assert [part.reason for part in cut.parts] == ["it reaches out of the image", ""]
    [(x, y, width, height)] = cut.others
    assert (x + width / 2, y + height / 2) == pytest.approx((450, 320), abs=3)


def test_specks_of_dust_are_nothing(layout: PartLayout) -> None:
    image = tray(43)
    for x, y in ((30, 210), (200, 215), (380, 205)):
        cv2.circle(image, (x, y), 2, (60, 60, 60), -1)
    assert cut_out(image, layout).others == ()


def test_a_neighbor_within_the_window_is_hidden(layout: PartLayout) -> None:
    close = tray(44, ((200, 200), (296, 200)), turns=(0.0, 0.0))
    alone = tray(44, ((200, 200),), turns=(0.0,))
    one, other = (cut_out(image, layout).parts[0].pixels for image in (close, alone))
    assert np.abs(one.astype(int) - other).mean() < 3


def test_an_image_without_a_plain_ground_gives_a_reason(layout: PartLayout) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (420, 560, 3)).astype(np.uint8)
    cut = cut_out(noise, layout)
    assert cut.parts == ()
    assert "plain" in cut.reason


def test_an_empty_ground_has_no_part(layout: PartLayout) -> None:
    cut = cut_out(tray(45, ()), layout)
    assert (cut.parts, cut.others, cut.reason) == ((), (), "")


def test_within_keeps_what_has_its_middle_there(layout: PartLayout) -> None:
    weights = np.zeros((420, 560), np.uint8)
    weights[:210] = 255
    assert len(cut_out(tray(46), layout).within(weights).parts) == 3


def test_the_pose_of_a_turned_template_is_its_turn(layout: PartLayout) -> None:
    template = Template.stored(layout.template)
    side = template.picture.shape[0]
    for degrees in (0.0, 17.0, 123.0, -70.0):
        matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), degrees, 1.0)
        matrix[:, 2] += (1.5, -0.5)
        pose, agreement = template.pose(cv2.warpAffine(template.picture, matrix, (side, side)))
        assert agreement > 0.98
        assert np.abs(pose - matrix).max() < 0.5


def test_a_stored_template_is_the_same_to_a_gray_level(layout: PartLayout) -> None:
    first = Template.stored(layout.template)
    assert Template(first.picture).store() == layout.template
    for wrong in ("", "AAAA", layout.template[:200]):
        with pytest.raises(ArgumentError, match="picture of a part"):
            Template.stored(wrong)


def test_rows_are_read_from_the_top_and_from_the_left() -> None:
    content = at_find_scale(tray(47))
    blobs = blobs_of(content)
    centers = [blob.centroid for blob in in_rows(list(reversed(blobs)), 0.1 * side_of(content.shape))]
    assert [center[0] for center in centers[:3]] == sorted(center[0] for center in centers[:3])
    assert max(center[1] for center in centers[:3]) < min(center[1] for center in centers[3:])


def test_a_disc_is_not_parted_and_its_picture_lies_within(layout: PartLayout) -> None:
    image = tray(48, ())
    cv2.circle(image, (280, 200), 60, (70, 80, 110), -1)
    content = at_find_scale(image)
    [blob] = blobs_of(content)
    assert parted(blob, Template.stored(layout.template), layout.reach * side_of(content.shape), 2) == [blob]
    picture = pictured(content, blob, blob.reach)
    assert picture.max() > 0.5
    assert picture[0].max() == 0
