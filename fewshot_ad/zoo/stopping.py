"""When a training stops before its last epoch: options of the baselines that anomalib trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from fewshot_ad.errors import ZooError

Monitored: TypeAlias = Literal["loss", "image_auroc", "pixel_auroc"]
# The options with their defaults, and their types.
STOPPING: Mapping[str, Any] = {"patience": None, "validation": 0.0, "monitor": "loss"}
STOPPING_TYPES: Mapping[str, Any] = {"patience": int | None, "validation": float, "monitor": Monitored}
# Share of the images that may be held out.
MOST_HELD_OUT = 0.5


def check_stopping(name: str, monitors: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Make sure that a training can stop as it is told, see `method.running_options`.

    Args:
        name: Name of a baseline whose card says `stops_early`, for messages.
        monitors: What it can stop by, of its card.
        settings: `patience`, `validation` and `monitor`, as far as they are given, of their types.

    Raises:
        ZooError: A number is out of range, one asks for another, or the baseline has no such figure.
    """
    patience, validation, monitor = ({**STOPPING, **settings}[key] for key in STOPPING)
    numbers = (patience is None or type(patience) is int) and type(validation) in (int, float)
    if not numbers or (patience is not None and patience < 1) or not 0 <= validation <= MOST_HELD_OUT:
        raise ZooError(
            f"{name}: expected patience of at least 1 or none and validation in 0..{MOST_HELD_OUT}, got {patience} and "
            f"{validation}."
        )
    if patience is None:
        for option in ("validation", "monitor"):
            if settings.get(option, STOPPING[option]) != STOPPING[option]:
                raise ZooError(f"{name}: expected patience with {option}, got none: nothing would come of it.")
        return
    if monitor not in monitors:
        raise ZooError(f"{name}: expected monitor among {', '.join(monitors)}, got {monitor!r}.")
    if monitor != "loss" and not validation > 0:
        raise ZooError(
            f"{name}: expected validation with monitor={monitor}, the share of the images that are held out and drawn "
            "defects on, got 0."
        )
