"""Tiny copies of one's own images with boxes, as tools for labeling write them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.datasets.drawing import FIRST, HW, SECOND, Expected, drawn, text

MARKED = {"b.png": ("dent", (FIRST,)), "c.png": ("combined", (FIRST, SECOND))}


def _expected(root: Path, folder: str) -> list[Expected]:
    expected = [Expected(f"{folder}{i}.png", root.name, "test" if i == 4 else "train", 0, "good") for i in range(5)]
    for name, (kind, places) in MARKED.items():
        expected.append(Expected(f"{folder}{name}", root.name, "test", 1, kind, boxes=len(places)))
    return expected


def coco(root: Path) -> list[Expected]:
    expected = _expected(root, "images/")
    names = [Path(one.path).name for one in expected]
    annotations = [
        {
            "image_id": names.index(name),
            "category_id": 10 + number,
            "bbox": [x.start, y.start, x.stop - x.start, y.stop - y.start],
        }
        for name, (_, places) in MARKED.items()
        for number, (y, x) in enumerate(places)
    ]
    content = {
        "images": [{"id": i, "file_name": name, "height": HW[0], "width": HW[1]} for i, name in enumerate(names)],
        "annotations": annotations,
        "categories": [{"id": 10, "name": "dent"}, {"id": 11, "name": "stain"}],
    }
    text(root / "annotations.json", json.dumps(content))
    return drawn(root, expected)


def yolo(root: Path) -> list[Expected]:
    for name, (_, places) in MARKED.items():
        lines = [
            f"{number} {(x.start + x.stop) / 2 / HW[1]} {(y.start + y.stop) / 2 / HW[0]} "
            f"{(x.stop - x.start) / HW[1]} {(y.stop - y.start) / HW[0]}"
            for number, (y, x) in enumerate(places)
        ]
        text(root / "labels/val" / Path(name).with_suffix(".txt"), "\n".join(lines) + "\n")
    text(root / "labels/val/0.txt", "")
    text(root / "data.yaml", "names: [dent, stain]\n")
    return drawn(root, _expected(root, "images/val/"))
