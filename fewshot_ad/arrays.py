"""Names for the arrays that are handed around, and for the callback that reports progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Uint8Array: TypeAlias = npt.NDArray[np.uint8]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Int32Array: TypeAlias = npt.NDArray[np.int32]
IndexArray: TypeAlias = npt.NDArray[np.int64]

# Called as progress(stage, done, total): a word for the stage, how much of it is done, and how much there is.
Progress: TypeAlias = Callable[[str, int, int], None]


def in_steps(progress: Progress | None, at: int, count: int, stage: str | None = None) -> Progress | None:
    """Progress of one of several equal steps as progress of all of them.

    Args:
        progress: What is told of all of them; None for nothing.
        at: Which step it is, from 0.
        count: Number of steps.
        stage: Its word for them; None for each step's own.
    """
    if progress is None:
        return None
    return lambda step, done, total: progress(stage or step, at * total + done, count * total)
