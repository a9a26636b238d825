from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.enrollment.support import VIEW_KINDS, View, parse_views, read_support
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


def test_support_set_reports_what_it_noticed(tmp_path: Path, parts: list[np.ndarray]) -> None:
    for i, part in enumerate(parts[:3]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), part[..., ::-1])
    cv2.imwrite(str(tmp_path / "same.png"), parts[0][..., ::-1])
    rng = np.random.default_rng(0)
    again = np.clip(parts[1].astype(int) + rng.integers(-1, 2, parts[1].shape), 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "twin.png"), again[..., ::-1])
    cv2.imwrite(str(tmp_path / "night.png"), parts[2] // 12)
    (tmp_path / "torn.png").write_bytes((tmp_path / "0.png").read_bytes()[:300])
    support = read_support(tmp_path)
    assert [image.name for image in support.images] == ["0.png", "1.png", "2.png", "night.png", "twin.png"]
    notes = "\n".join(support.notes)
    assert "identical to 0.png: same.png" in notes
    assert "nearly identical: 1.png and twin.png" in notes
    assert "almost black: night.png" in notes
    assert "torn.png" in notes


def test_two_different_parts_are_not_called_duplicates(parts: list[np.ndarray]) -> None:
    assert read_support(parts).notes == ()


@pytest.mark.parametrize("nothing", [[], ["nowhere/*.png"]])
def test_empty_support_set_is_refused(nothing: list[str]) -> None:
    with pytest.raises(SupportSetError, match=r"Give good images|nothing matches"):
        read_support(nothing)


def test_unreadable_support_set_names_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(SupportSetError, match=r"a\.png"):
        read_support(tmp_path)


def test_one_image_is_enough_but_said_to_be_little(parts: list[np.ndarray]) -> None:
    assert "only one image" in read_support(parts[0]).notes[0]


def test_a_large_support_set_is_read_again_instead_of_kept(part_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = read_support(part_folder).images
    monkeypatch.setattr("fewshot_ad.enrollment.support.KEPT_BYTES", 2 * 128 * 128 * 3)
    calls: list[tuple[str, int, int]] = []
    streamed = read_support(part_folder, progress=lambda *call: calls.append(call)).images
    assert [image.loaded is None for image in streamed] == [False, False, True, True, True]
    for a, b in zip(kept, streamed, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)
    assert calls[-1] == ("read", 5, 5)
    path = streamed[-1].source
    cv2.imwrite(str(path), np.zeros((128, 128, 3), np.uint8))
    with pytest.raises(SupportSetError, match="changed while"):
        _ = streamed[-1].pixels
    path.unlink()
    with pytest.raises(SupportSetError, match="cannot be now"):
        _ = streamed[-1].pixels
