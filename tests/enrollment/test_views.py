"""Views: chosen by name and strength, knowing where each pixel comes from."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.enrollment.views import VIEW_KINDS, View, parse_views
from fewshot_ad.errors import SupportSetError


def test_views_are_chosen_by_name_and_strength() -> None:
    assert parse_views("none") == ()
    assert parse_views("hflip,rotate=90/180") == (View("hflip"), View("rotate", 90), View("rotate", 180))
    assert parse_views({"brightness": [0.8]}) == (View("brightness", 0.8),)
    assert {v.kind for v in parse_views("translate")} == {"translate_x", "translate_y"}
    assert {v.kind for v in parse_views("all")} == set(VIEW_KINDS)
    assert parse_views("hflip,hflip") == (View("hflip"),)
    assert parse_views([str(v) for v in parse_views("all")]) == parse_views("all")


@pytest.mark.parametrize("spec", ["sideways", "rotate=1000", "rotate=a", {"contrast": [0]}])
def test_impossible_views_are_refused(spec: object) -> None:
    with pytest.raises(SupportSetError, match="expected"):
        parse_views(spec)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spec", ["scale=1", "rotate=0", "rotate=90/360", "hue=-360", "translate=0", {"brightness": [1]}, "contrast=1.0"]
)
def test_a_view_that_changes_nothing_is_refused(spec: object) -> None:
    with pytest.raises(SupportSetError, match="leaves it as it is"):
        parse_views(spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VIEW_KINDS)
def test_only_the_neutral_strength_leaves_the_image_as_it_is(name: str) -> None:
    kind, image = VIEW_KINDS[name], np.random.default_rng(0).integers(64, 256, (24, 32, 3), np.uint8)
    strengths = [*kind.strengths, *([] if kind.neutral is None else [kind.neutral, kind.neutral + kind.period])]
    for strength in strengths:
        seen, _, _ = View(name, strength).apply(image, np.full((24, 32), 255, np.uint8))
        # A turn through HSV rounds; a rotation by 360 degrees may.
        same = bool(np.abs(seen.astype(int) - image).max() <= 6)
        assert same == kind.changes_nothing(strength)


@pytest.mark.parametrize("view", parse_views("all"), ids=str)
def test_a_view_knows_where_each_of_its_pixels_comes_from(view: View) -> None:
    image = np.zeros((96, 128, 3), np.uint8)
    cv2.circle(image, (70, 40), 5, (255, 255, 255), -1)
    seen, _, back = view.apply(image, np.full((96, 128), 255, np.uint8))
    assert seen.shape == image.shape
    rows, columns = np.nonzero(seen[..., 0] > 200)
    x, y = back @ np.array([columns.mean(), rows.mean(), 1.0])
    assert (x, y) == (pytest.approx(70, abs=0.7), pytest.approx(40, abs=0.7))


@settings(max_examples=20, deadline=None)
@given(degrees=st.floats(5, 85), shift=st.floats(0.05, 0.3))
def test_mirrored_border_is_masked_out(degrees: float, shift: float) -> None:
    image = np.full((64, 64, 3), 9, np.uint8)
    full = np.full((64, 64), 255, np.uint8)
    for view in (View("rotate", degrees), View("translate_x", shift), View("scale", 1 - shift)):
        _, mask, back = view.apply(image, full)
        y, x = np.nonzero(mask == 255)
        source = back @ np.stack([x, y, np.ones(len(x))])
        assert mask.min() == 0
        assert source.min() >= -0.01
        assert source.max() <= 63.01


def test_photometric_views_do_what_they_say() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(80, 160, (32, 32, 3), dtype=np.uint8)
    mask = np.full((32, 32), 255, np.uint8)
    brighter = View("brightness", 1.2).apply(image, mask)[0]
    assert brighter.mean() == pytest.approx(image.mean() * 1.2, rel=0.01)
    flatter = View("contrast", 0.5).apply(image, mask)[0]
    assert flatter.mean() == pytest.approx(image.mean(), rel=0.01)
    assert flatter.std() == pytest.approx(image.std() * 0.5, rel=0.05)
    gray = View("gray").apply(image, mask)[0]
    assert (np.ptp(gray, axis=2) == 0).all()
    red = np.full((8, 8, 3), (200, 20, 20), np.uint8)
    assert View("hue", 120).apply(red, mask)[0].reshape(-1, 3).argmax(axis=1).tolist() == [1] * 64
    assert View("hue", -120).apply(red, mask)[0].reshape(-1, 3).argmax(axis=1).tolist() == [2] * 64
    np.testing.assert_array_equal(View("hue", 40).apply(gray, mask)[0], gray)
