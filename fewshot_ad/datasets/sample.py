"""One photograph of a dataset, with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

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
