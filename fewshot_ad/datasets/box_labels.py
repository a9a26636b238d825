"""Boxes as tools for labeling write them: YOLO's text files, and COCO's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from fewshot_ad.datasets.files import read_text
from fewshot_ad.documents.json_text import parse_json
from fewshot_ad.errors import DatasetError

# x, y, width and height in pixels; center x, center y, width and height as shares of the image.
Box: TypeAlias = tuple[int, int, int, int]
BoxShares: TypeAlias = tuple[float, float, float, float]


def yolo_boxes(path: Path) -> list[tuple[int, BoxShares]]:
    """Class numbers and boxes of a text file of YOLO labels; none if there is no such file.

    Raises:
        DatasetError: A line is no label.
    """
    if not path.exists():
        return []
    boxes = []
    for number, line in enumerate(read_text(path, "YOLO labels").splitlines(), start=1):
        if line.strip():
            boxes.append(_yolo_box(line, f"{path}, line {number}"))
    return boxes


def _yolo_box(line: str, where: str) -> tuple[int, BoxShares]:
    try:
        label, *values = line.split()
        x, y, width, height = map(float, values)
        kind = int(label)
    except ValueError:
        kind, x, y, width, height = -1, 0.0, 0.0, 0.0, 0.0
    if kind < 0 or not (0 <= x <= 1 and 0 <= y <= 1 and 0 < width <= 1 and 0 < height <= 1):
        raise DatasetError(
            f"{where}: expected a class and a box, as `0 0.5 0.5 0.1 0.2`: center x, center y, width and height as "
            f"shares of the image, got {line[:60]!r}. Export the labels as YOLO detection labels."
        )
    return kind, (x, y, width, height)


def coco_boxes(path: Path) -> dict[str, list[tuple[str, Box]]]:
    """Names of the images in a file of COCO annotations, each with the class names and boxes on it.

    Raises:
        DatasetError: It is no such file, or an annotation has no box, or one of no image.
    """
    what = "COCO annotations"
    content = parse_json(read_text(path, what), str(path), DatasetError, what)
    try:
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        kinds = {one["id"]: str(one["name"]) for one in content.get("categories", ())}
        boxes: dict[str, list[tuple[str, Box]]] = {name: [] for name in names.values()}
        for annotation in content["annotations"]:
            kind = kinds.get(annotation.get("category_id"), "defect")
            if annotation["image_id"] not in names:
                raise DatasetError(
                    f"{path}: expected {what} of its own images, got one of image {annotation['image_id']!r}, which is "
                    "not among `images`. Export them anew, or remove that annotation."
                )
            boxes[names[annotation["image_id"]]].append((kind, _whole_pixels(annotation["bbox"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{path}: expected {what} with images (id, file_name) and annotations (image_id, bbox), got something else "
            f"({type(error).__name__}: {error}). Export them as COCO detection."
        ) from error
    return boxes


def _whole_pixels(box: Any) -> Box:
    """The pixels that a box covers, in part or as a whole."""
    x, y, width, height = (float(value) for value in box)
    left, top, right, bottom = int(x // 1), int(y // 1), int(-(-(x + width) // 1)), int(-(-(y + height) // 1))
    return left, top, right - left, bottom - top
