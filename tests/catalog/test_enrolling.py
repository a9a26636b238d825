from __future__ import annotations

import time
from pathlib import Path

import cv2
import pytest

from fewshot_ad import ArgumentError, Inspector
from fewshot_ad.catalog import enroll_each
from tests.conftest import make_part

SETTINGS = {"views": "none", "image_size": 64}


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    root = tmp_path / "products"
    for name, part, seeds in (("a", "", 0), ("b", "good", 10), ("c", "train/good", 20)):
        folder = root / name / part
        folder.mkdir(parents=True)
        for seed in range(seeds, seeds + 3):
            cv2.imwrite(str(folder / f"{seed}.png"), make_part(seed, 64)[..., ::-1])
    (root / "empty").mkdir()
    (root / "one_line.txt").write_text("no folder")
    return root


def test_each_folder_becomes_a_product_and_what_is_there_stays(parent: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = {one.name: one for one in enroll_each(parent, out, workers=2, settings=SETTINGS)}
    assert {name: one.status for name, one in first.items()} == {
        "a": "enrolled",
        "b": "enrolled",
        "c": "enrolled",
        "empty": "failed",
    }
    assert "expected good images" in first["empty"].message
    assert sorted(path.name for path in out.iterdir()) == ["a.fsad", "b.fsad", "c.fsad"]
    assert Inspector.load(out / "b.fsad").product == "b"
    before = (out / "a.fsad").read_bytes()
    # As after an interruption: one of them is missing.
    (out / "c.fsad").unlink()
    again = {one.name: one.status for one in enroll_each(parent, out, workers=1, settings=SETTINGS)}
    assert again == {"a": "there", "b": "there", "c": "enrolled", "empty": "failed"}
    assert (out / "a.fsad").read_bytes() == before
    time.sleep(1.1)  # the enrollment's time has seconds
    anew = {one.name: one.status for one in enroll_each(parent, out, workers=1, force=True, settings=SETTINGS)}
    assert anew["a"] == "enrolled"
    assert (out / "a.fsad").read_bytes() != before


def test_what_is_no_folder_of_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="sub-folder for each product"):
        list(enroll_each(tmp_path / "nowhere", tmp_path / "out"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(ArgumentError, match="got none"):
        list(enroll_each(tmp_path / "bare", tmp_path / "out"))
    with pytest.raises(ArgumentError, match="workers"):
        list(enroll_each(tmp_path, tmp_path / "out", workers=0))
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="expected a folder for the products"):
        list(enroll_each(tmp_path, tmp_path / "file" / "out"))
