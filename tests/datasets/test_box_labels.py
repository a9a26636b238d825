from __future__ import annotations

from pathlib import Path

import pytest

from fewshot_ad.datasets import open_dataset
from fewshot_ad.datasets.box_labels import coco_boxes, yolo_boxes
from fewshot_ad.errors import DatasetError
from tests.datasets.own_boxes import yolo


@pytest.mark.parametrize(
    "line", ["0 0.5 0.5 0.1", "0 0.5 0.5 0.1 nan", "0 12 30 4 4", "dent 0.5 0.5 0.1 0.1", "0 0 0 0 0"]
)
def test_a_line_that_is_no_label_is_named(tmp_path: Path, line: str) -> None:
    labels = tmp_path / "a.txt"
    labels.write_text(f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    with pytest.raises(DatasetError, match=r"a\.txt, line 3: expected a class and a box"):
        yolo_boxes(labels)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"images": []}',
        '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 2, "bbox": [0, 0, 1, 1]}]}',
        '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "bbox": [0, 0]}]}',
        '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1}]}',
        "no JSON",
    ],
)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "annotations.json"
    file.write_text(content)
    with pytest.raises(DatasetError, match=r"annotations\.json.*expected COCO annotations") as raised:
        coco_boxes(file)
    assert ("of image 2, which is not among" in str(raised.value)) == ('"image_id": 2' in content)


def test_a_box_of_parts_of_pixels_covers_them(tmp_path: Path) -> None:
    file = tmp_path / "annotations.json"
    images = '"images": [{"id": 1, "file_name": "a.png"}]'
    file.write_text(f'{{{images}, "annotations": [{{"image_id": 1, "bbox": [1.5, 2.0, 2.0, 1.25]}}]}}')
    assert coco_boxes(file) == {"a.png": [("defect", (1, 2, 3, 2))]}


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_text('{"images": [{"id": 1, "file_name": "../a.png"}], "annotations": []}')
    with pytest.raises(DatasetError, match="below it"):
        list(open_dataset("coco", tmp_path).samples())


def test_classes_without_names_go_by_their_numbers(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    kinds = {sample.defect_type for sample in open_dataset("yolo", tmp_path).samples() if sample.label}
    assert kinds == {"class_0", "combined"}
