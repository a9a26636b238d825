from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewshot_ad.datasets import DatasetError, Sample, open_dataset
from tests.datasets.drawing import FIRST, HW, SECOND, image, run_lengths, text
from tests.datasets.layouts import LAYOUTS


def test_run_lengths_go_down_the_columns_and_on_into_the_next() -> None:
    sample = Sample(Path("a.jpg"), "steel", "test", 1, "class_1", runs=("3 2 5 1",))
    assert np.argwhere(sample.mask((2, 4))).tolist() == [[0, 1], [0, 2], [1, 1]]
    whole = Sample(Path("a.jpg"), "steel", "test", 1, "class_1", runs=("1 8",))
    assert whole.mask((2, 4)).all()


@pytest.mark.parametrize("runs", ["", "3", "3 2 5", "0 2", "3 0", "8 2", "-1 2", "3 x", "9 1", "1 " + "9" * 30])
def test_run_lengths_that_do_not_fit_are_refused(runs: str) -> None:
    sample = Sample(Path("a.jpg"), "steel", "test", 1, "class_1", runs=(runs,))
    with pytest.raises(DatasetError, match=r"a\.jpg: expected pairs of first pixel and length within its 4 x 2 pixels"):
        sample.mask((2, 4))


def test_severstal_reads_the_older_table(tmp_path: Path) -> None:
    expected = LAYOUTS["severstal"](tmp_path)
    before = list(open_dataset("severstal", tmp_path).samples())
    lengths = {"a.jpg_3": run_lengths(FIRST), "b.jpg_1": run_lengths(FIRST), "b.jpg_4": run_lengths(SECOND)}
    names = sorted(Path(e.path).name for e in expected)
    rows = [f"{name}_{c},{lengths.get(f'{name}_{c}', '')}" for name in names for c in range(1, 5)]
    text(tmp_path / "train.csv", "\n".join(["ImageId_ClassId,EncodedPixels", *rows]))
    assert list(open_dataset("severstal", tmp_path).samples()) == before


def test_severstal_names_images_that_only_its_table_has(tmp_path: Path) -> None:
    LAYOUTS["severstal"](tmp_path)
    (tmp_path / "train_images/a.jpg").unlink()
    assert "a.jpg" in {s.path.name for s in open_dataset("severstal", tmp_path).samples() if s.label == 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "ImageId,ClassId,EncodedPixels\na.jpg,5,1 2",
            r"line 2: expected an image and a class among 1, 2, 3, 4, got 'a",
        ),
        ("ImageId,EncodedPixels\na.jpg,1 2", "line 2: expected an image and a class"),
        ("ImageId_ClassId,EncodedPixels\na.jpg,1 2", "line 2: expected an image and a class"),
        ("ImageId,ClassId,EncodedPixels\n../a.jpg,1,1 2", "line 2: expected a path relative to"),
        ("ImageId,ClassId\na.jpg,1", "expected a first line with the columns EncodedPixels"),
    ],
)
def test_severstal_says_what_is_wrong_with_its_table(tmp_path: Path, rows: str, message: str) -> None:
    LAYOUTS["severstal"](tmp_path)
    text(tmp_path / "train.csv", rows)
    with pytest.raises(DatasetError, match=message):
        list(open_dataset("severstal", tmp_path).samples())


@pytest.mark.parametrize(
    "annotation",
    [
        None,
        "no XML",
        "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>",
        '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>',
        "<annotation/>",
    ],
)
def test_neu_det_without_boxes_is_defective_still(tmp_path: Path, annotation: str | None) -> None:
    LAYOUTS["neu_det"](tmp_path)
    path = tmp_path / "ANNOTATIONS/crazing_1.xml"
    path.unlink()
    if annotation is not None:
        text(path, annotation)
    (sample,) = (s for s in open_dataset("neu_det", tmp_path).samples() if s.defect_type == "crazing")
    assert sample.label == 1
    assert not sample.has_mask


def test_eyecandies_takes_no_image_for_good_whose_mask_is_gone(tmp_path: Path) -> None:
    LAYOUTS["eyecandies"](tmp_path)
    (tmp_path / "Lollipop/test_public/data/00_mask.png").unlink()
    samples = list(open_dataset("eyecandies", tmp_path).samples(split="test"))
    assert [(s.label, s.has_mask) for s in samples] == [(1, False), (1, True)]


def test_aitex_leaves_out_what_is_no_strip_of_a_known_fabric(tmp_path: Path) -> None:
    expected = LAYOUTS["aitex"](tmp_path)
    image(tmp_path / "NODefect_images/2311517-195063u/copy of 0001.png")
    image(tmp_path / "Defect_images/0002_777_00.png")
    samples = list(open_dataset("aitex", tmp_path).samples())
    assert len(samples) == len(expected) + 1
    assert "777" in {s.defect_type for s in samples}
    two = next(s for s in samples if len(s.mask_paths) == 2)
    assert two.mask(HW)[FIRST].all()
    assert two.mask(HW)[SECOND].all()
