"""One photograph of a dataset, with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.errors import DatasetError

Split: TypeAlias = Literal["train", "validation", "test"]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """A photograph and its label.

    Attributes:
        path: Of the photograph.
        category: Product it shows.
        split: `train`, `validation` or `test`.
        label: 0 = good, 1 = defective.
        defect_type: `good`, or the kind of defect as the dataset names it.
        mask_paths: Files of its defect masks; several where the dataset has one a defect. Empty of a good photograph
            and of a dataset without masks.
        boxes: (x, y, width, height) of its defects in pixels, of a dataset that has boxes instead of masks.
    """

    path: Path
    category: str
    split: Split
    label: int
    defect_type: str
    mask_paths: tuple[Path, ...] = ()
    boxes: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def has_mask(self) -> bool:
        """Whether the defective pixels are known: of a good photograph, always."""
        return self.label == 0 or bool(self.mask_paths or self.boxes)

    def mask(self, hw: tuple[int, int]) -> BoolArray:
        """The defective pixels: the union of all masks or boxes.

        Args:
            hw: Height and width of the photograph in pixels.

        Returns:
            (H, W) bool; nothing is marked of a good photograph.

        Raises:
            DatasetError: The photograph is defective and has neither mask nor box, or one of them is damaged or does
                not fit the photograph.
        """
        marked = np.zeros(hw, np.bool_)
        if not self.has_mask:
            raise DatasetError(
                f"{self.path}: expected a mask of its defect ({self.defect_type}), but there is none. Leave this "
                "photograph out of figures by pixel, or get its mask from the publisher."
            )
        for path in self.mask_paths:
            mask = read_mask(path)
            if mask.shape != marked.shape:
                raise DatasetError(
                    f"{path}: expected the size of its photograph, {hw[1]} x {hw[0]} pixels, got {mask.shape[1]} x "
                    f"{mask.shape[0]}. Copy both from the same release of the dataset."
                )
            marked |= mask
        for x, y, width, height in self.boxes:
            rows, columns = slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))
            if not marked[rows, columns].size:
                raise DatasetError(
                    f"{self.path}: expected boxes inside {hw[1]} x {hw[0]} pixels, got x {x}, y {y}, width {width}, "
                    f"height {height}. Copy photograph and annotation from the same release of the dataset."
                )
            marked[rows, columns] = True
        return marked


def read_mask(path: Path) -> BoolArray:
    """Read a mask file: every pixel that is not black is defective, whatever its value.

    Args:
        path: A picture; of a JPEG, whose compression blurs edges, pixels of at least half the brightness count.

    Returns:
        (H, W) bool.

    Raises:
        DatasetError: The file is missing or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path}: expected a mask, but it cannot be read ({error.strerror}). Copy the dataset again."
        ) from error
    # What OpenCV would print about a broken file is said by the error instead.
    level = cv2.utils.logging.setLogLevel(0)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error:
        pixels = None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        raise DatasetError(
            f"{path}: expected a mask, but the file is truncated or no picture ({len(data)} bytes). Copy it again."
        )
    if pixels.ndim == 3:
        # A fourth channel is opacity, not defect.
        pixels = pixels[..., :3].max(axis=2)
    return np.asarray(pixels > (127 if path.suffix.lower() in (".jpg", ".jpeg") else 0), np.bool_)
