"""Draws the images and masks of tiny datasets."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

HW = (24, 32)
# Where the drawn masks and boxes are; some layouts draw a second defect.
FIRST, SECOND = (slice(4, 10), slice(6, 14)), (slice(15, 20), slice(20, 30))


class Expected(NamedTuple):
    path: str
    category: str
    split: str
    label: int
    defect_type: str
    masks: int = 0
    boxes: int = 0
    runs: int = 0


def image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *path.name.encode()])
    assert cv2.imwrite(str(path), rng.integers(0, 255, (*HW, 3), np.uint8))


def mask(path: Path, value: int = 255, where: tuple[slice, slice] | None = FIRST, hw: tuple[int, int] = HW) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(hw, np.uint8)
    if where is not None:
        pixels[where] = value
    # In a JPEG of full quality the edges of the drawn defect stay where they are.
    assert cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 100] if path.suffix == ".jpg" else [])


def run_lengths(where: tuple[slice, slice]) -> str:
    """First pixel and length of each column of a defect, pixels counted from 1 down the columns."""
    rows, columns = where
    return " ".join(
        f"{x * HW[0] + rows.start + 1} {rows.stop - rows.start}" for x in range(columns.start, columns.stop)
    )


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def drawn(root: Path, expected: list[Expected]) -> list[Expected]:
    for i, sample in enumerate(expected):
        image(root / sample.path, i)
    return expected
