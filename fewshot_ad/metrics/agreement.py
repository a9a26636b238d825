"""How far two implementations of the same computation are apart: the largest difference, and the decision flips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def relative_difference(values: npt.ArrayLike, expected: npt.ArrayLike, scale: float) -> float:
    """The largest |difference| between values and expected values, as a share of a scale.

    Args:
        values: Of any shape.
        expected: Of the same shape.
        scale: Above 0, in the unit of the values: a threshold, for example.
    """
    return float(np.abs(np.subtract(values, expected)).max()) / scale


def decision_flips(decisions: Sequence[bool], expected: Sequence[bool]) -> int:
    """The number of images on which two sequences of decisions differ.

    Raises:
        ValueError: They differ in length.
    """
    return sum(bool(decision) != bool(other) for decision, other in zip(decisions, expected, strict=True))
