"""One image of a dataset, with its label, defect type and mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import BoolArray
from fewshot_ad.documents.json_text import parse_json
from fewshot_ad.documents.reading import read_text
from fewshot_ad.errors import DatasetError, ImageError
from fewshot_ad.images import read_values
from fewshot_ad.metrics import SaturatedRegion

Split: TypeAlias = Literal["train", "validation", "test"]
_Pixels = TypeVar("_Pixels", npt.NDArray[np.bool_], npt.NDArray[np.integer[Any]])
GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """An image of a dataset and its annotation.

    Attributes:
        path: File of the image.
        category: Name of the category that it shows.
        split: `train`, `validation` or `test`.
        label: 0 = good, 1 = defective.
        defect_type: `good`, or the kind of defect as the dataset names it.
        mask_paths: Files of its defect masks; several where the dataset has one file per defect. Empty for a good
            image and for a dataset without masks.
        boxes: (x, y, width, height) of its defects in pixels, where the dataset has boxes instead of masks.
        box_shares: The same as shares of the image: center x, center y, width and height of each box.
        saturations: File that gives how much of each defect must be covered to count as all of it, by the value of the
            defect's mask; None where the dataset has no such file.
        runs: Run lengths of its defects, where the dataset has those instead of mask files: first pixel and length of
            each run in turn, pixels counted from 1 down the columns; several texts where it has one per defect type.
        points: File of the position of each pixel, see `points.read_points`; None where the dataset has none.
    """

    path: Path
    category: str
    split: Split
    label: int
    defect_type: str
    mask_paths: tuple[Path, ...] = ()
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    saturations: Path | None = None
    runs: tuple[str, ...] = ()
    box_shares: tuple[tuple[float, float, float, float], ...] = ()
    points: Path | None = None

    @property
    def has_mask(self) -> bool:
        """Whether the defective pixels are known; always True for a good image."""
        return self.label == 0 or bool(self.mask_paths or self.boxes or self.box_shares or self.runs)

    def mask(self, hw: tuple[int, int]) -> BoolArray:
        """The defective pixels: the union of all masks, boxes or runs.

        Args:
            hw: Height and width of the image in pixels.

        Returns:
            (H, W) bool, True = defect; all False for a good image.

        Raises:
            DatasetError: The image is defective and has neither mask nor box nor run, or one of them is damaged
                or does not fit the image.
        """
        defective = np.zeros(hw, np.bool_)
        if not self.has_mask:
            raise DatasetError(
                f"{self.path}: expected a mask of its defect ({self.defect_type}), but there is none. Leave this "
                "image out of pixel metrics, or get its mask from the publisher."
            )
        for path in self.mask_paths:
            defective |= _require_size(path, read_mask(path), hw)
        for x, y, width, height in (*self.boxes, *_in_pixels(self.box_shares, hw)):
            rows, columns = slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))
            if not defective[rows, columns].size:
                raise DatasetError(
                    f"{self.path}: expected boxes inside {hw[1]} x {hw[0]} pixels, got x {x}, y {y}, width {width}, "
                    f"height {height}. Copy image and annotation from the same release of the dataset."
                )
            defective[rows, columns] = True
        for text in self.runs:
            defective |= _decode_runs(self.path, text, hw)
        return defective

    def saturated_regions(self, hw: tuple[int, int]) -> list[SaturatedRegion]:
        """The defects with how much of each must be covered to count as all of it; empty for a good image.

        Args:
            hw: Height and width of the image in pixels.

        Raises:
            DatasetError: The dataset has no file of saturations, or the file has no entry for the value of a mask; or a
                mask is damaged or does not fit the image.
        """
        if self.saturations is None:
            raise DatasetError(f"{self.path}: its dataset does not say how much of a defect is enough.")
        saturations, regions = _read_saturations(self.saturations), []
        for path in self.mask_paths:
            values = _require_size(path, _read_values(path), hw)
            value = int(values.max())
            if value not in saturations:
                raise DatasetError(
                    f"{path}: expected one of the values {sorted(saturations)}, which {self.saturations} names, got "
                    f"{value}. Copy both from the same release of the dataset."
                )
            regions.append(SaturatedRegion(values > 0, *saturations[value]))
        return regions


def _require_size(path: Path, pixels: _Pixels, hw: tuple[int, int]) -> _Pixels:
    if pixels.shape != hw:
        raise DatasetError(
            f"{path}: expected the size of its image, {hw[1]} x {hw[0]} pixels, got {pixels.shape[1]} x "
            f"{pixels.shape[0]}. Copy both from the same release of the dataset."
        )
    return pixels


def _in_pixels(
    shares: tuple[tuple[float, float, float, float], ...], hw: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Boxes (x, y, width, height) in pixels, each of at least one pixel."""
    boxes = []
    for x, y, width, height in shares:
        left, top = round((x - width / 2) * hw[1]), round((y - height / 2) * hw[0])
        boxes.append((left, top, max(1, round(width * hw[1])), max(1, round(height * hw[0]))))
    return boxes


def _decode_runs(path: Path, text: str, hw: tuple[int, int]) -> BoolArray:
    """(H, W) pixels that the run lengths of an image mark."""
    pixels = np.zeros(hw[0] * hw[1], np.bool_)
    try:
        numbers = [int(number) for number in text.split()]
    except ValueError:
        numbers = []
    runs = list(zip(numbers[::2], numbers[1::2], strict=False))
    fits = all(1 <= start <= start + length - 1 <= pixels.size for start, length in runs)
    if not runs or len(numbers) % 2 or not fits:
        raise DatasetError(
            f"{path}: expected pairs of first pixel and length within its {hw[1]} x {hw[0]} pixels, got run lengths "
            f"{text[:40]!r}. Copy image and annotation from the same release of the dataset."
        )
    for start, length in runs:
        pixels[start - 1 : start - 1 + length] = True
    return pixels.reshape(hw, order="F")


_SATURATIONS = "a JSON list of objects with pixel_value, saturation_threshold and relative_saturation"


@lru_cache(maxsize=64)
def _read_saturations(path: Path) -> dict[int, tuple[float, bool]]:
    """Saturation, and whether it is a share, by the value of a mask: as MVTec LOCO AD publishes them."""
    try:
        entries = parse_json(read_text(path, DatasetError, _SATURATIONS), str(path), DatasetError, _SATURATIONS)
        return {
            int(entry["pixel_value"]): (float(entry["saturation_threshold"]), bool(entry["relative_saturation"]))
            for entry in entries
        }
    except DatasetError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise DatasetError(
            f"{path}: expected {_SATURATIONS} ({type(error).__name__}: {error}). Copy the dataset again."
        ) from error


def read_mask(path: Path) -> BoolArray:
    """Read a mask file: every pixel that is not black is defective, whatever its value.

    Args:
        path: An image file. In a JPEG, whose compression blurs edges, only pixels of at least half the brightness are
            defective.

    Returns:
        (H, W) bool.

    Raises:
        DatasetError: The file is missing or damaged.
    """
    values = _read_values(path)
    return np.asarray(values > (127 if path.suffix.lower() in (".jpg", ".jpeg") else 0), np.bool_)


def _read_values(path: Path) -> npt.NDArray[np.integer[Any]]:
    """(H, W) values of a mask file."""
    try:
        return read_values(path)
    except ImageError as error:
        raise DatasetError(str(error)) from error
