from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from fewshot_ad.errors import ImageError
from fewshot_ad.images import SUFFIXES, expand_sources, is_overlay, list_images, read_image


def save(path: Path, marked: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32)).save(path, "PNG")
    if marked:
        content = path.read_bytes()
        body = b"tEXtfewshot-ad\0overlay"
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        path.write_bytes(content[:33] + chunk + content[33:])


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_overlays_of_earlier_inspections_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fewshot_ad.images")
    save(tmp_path / "0.png")
    save(tmp_path / "0_overlay.png", marked=True)
    save(tmp_path / "1_overlay.png")  # of someone else
    save(tmp_path / "2.png", marked=True)  # renamed by someone who wants it
    for source in (tmp_path, f"{tmp_path}/*.png", f"{tmp_path}/**/*.png"):
        caplog.clear()
        assert names(list_images(source)) == ["0.png", "1_overlay.png", "2.png"]
        assert "1 overlay of earlier inspections left out." in caplog.text
    assert list_images(tmp_path / "0_overlay.png") == [tmp_path / "0_overlay.png"]
    assert read_image(tmp_path / "0_overlay.png").shape == (32, 32, 3)
    with pytest.raises(ImageError, match="matches only overlays"):
        list_images(f"{tmp_path}/0_*.png")


def test_the_mark_of_an_overlay(tmp_path: Path) -> None:
    save(tmp_path / "plain.png")
    save(tmp_path / "marked.png", marked=True)
    assert is_overlay(tmp_path / "marked.png")
    assert not is_overlay(tmp_path / "plain.png")
    assert not is_overlay(tmp_path / "missing.png")
    assert not is_overlay(tmp_path)


def test_a_link_that_leads_nowhere_is_an_error_in_its_place(tmp_path: Path) -> None:
    save(tmp_path / "0.png")
    (tmp_path / "1.png").symlink_to(tmp_path / "moved.png")
    for source in (tmp_path, f"{tmp_path}/*.png", tmp_path / "1.png"):
        listed = list_images(source)
        assert listed[-1] == tmp_path / "1.png"
        with pytest.raises(ImageError, match="a link to a file that does not exist"):
            read_image(listed[-1])


def test_what_is_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fewshot_ad.images")
    save(tmp_path / "0.png")
    for name in ("notes.txt", "README", ".hidden.avif", "b.csv"):
        (tmp_path / name).write_text("no image")
    assert names(list_images(tmp_path)) == ["0.png"]
    assert not caplog.text
    save(tmp_path / "image")  # without a suffix
    for name in ("a.avif", "b.JP2"):
        (tmp_path / name).write_text("of another kind")
    assert names(list_images(tmp_path)) == ["0.png"]
    assert "3 images left out, of a kind or name that is not read: a.avif, b.JP2, image." in caplog.text


@pytest.mark.parametrize("suffix", [".jpe", ".jfif", ".pbm", ".pnm"])
def test_suffixes_of_formats_that_are_read_count(tmp_path: Path, suffix: str) -> None:
    assert suffix in SUFFIXES
    save(tmp_path / f"0{suffix}")
    assert names(list_images(tmp_path)) == [f"0{suffix}"]


def test_folders_that_are_links_are_not_followed(tmp_path: Path) -> None:
    for name in ("0.png", "a/1.png", "a/b/2.png", ".hidden/3.png"):
        save(tmp_path / name)
    for name in ("self", "a/self", "a/b/self"):
        (tmp_path / name).symlink_to(tmp_path)
    (tmp_path / "a" / "again.png").symlink_to(tmp_path / "0.png")
    assert names(list_images(f"{tmp_path}/**/*.png")) == ["0.png", "1.png", "2.png"]
    assert names(list_images(f"{tmp_path}/**/**/2.png")) == ["2.png"]
    assert names(list_images(f"{tmp_path}/**")) == ["0.png", "1.png", "2.png"]
    # One that is named is followed.
    assert names(list_images(f"{tmp_path}/self/*.png")) == ["0.png"]
    assert names(list_images(f"{tmp_path}/*/*/b/2.png")) == ["2.png"]
    assert names(list_images(f"{tmp_path}/.h*/*.png")) == ["3.png"]


def test_a_glob_of_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save(tmp_path / "good" / "0.png")
    monkeypatch.chdir(tmp_path)
    for source in ("good/*.png", "*/0.png", "**/*.png", "g??d/[0-9].png"):
        assert list_images(source) == [Path("good/0.png")]


@pytest.mark.parametrize(
    ("source", "advice"),
    [("~/x*.png", "expanduser"), ("https://example.org/*.png", "download the file"), ("no/*.png", "Check the path")],
)
def test_a_pattern_that_matches_nothing_is_told_its_fix(source: str, advice: str) -> None:
    with pytest.raises(ImageError, match=f"nothing matches.*{advice}"):
        list_images(source)
    (error,) = expand_sources(source, keep_errors=True)
    assert isinstance(error, ImageError)
