"""Presets: settings that go together, from fast to accurate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from fewshot_ad.encoder.engine import Precision
from fewshot_ad.enrollment.support import ViewsSpec
from fewshot_ad.errors import SupportSetError

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 64, 2048
PresetName: TypeAlias = Literal["fast", "balanced", "accurate"]


@dataclass(frozen=True)
class Preset:
    """Settings of `Inspector.from_support`; what the caller gives goes before them.

    Attributes:
        views: Augmentations of the support images.
        image_size: Working scale in pixels, or `"auto"`.
        budget: Bank vectors a level.
        precision: Of the network.
    """

    views: ViewsSpec
    image_size: int | Literal["auto"]
    budget: int
    precision: Precision | Literal["auto"]


# Figures: benchmarks/presets.py, in docs/results/board.md.
PRESETS: dict[PresetName, Preset] = {
    "fast": Preset("hflip,vflip,rotate=180", 256, 1000, "auto"),
    "balanced": Preset("auto", "auto", 2000, "f32"),
    # The network reads any size as it is, so a larger scale needs no tiles.
    "accurate": Preset("hflip,vflip,rotate=45/90/135/180/225/270/315", 384, 8000, "f32"),
}


def settings(
    name: PresetName,
    views: ViewsSpec | None = None,
    image_size: int | Literal["auto"] | None = None,
    budget: int | None = None,
    precision: Precision | Literal["auto"] | None = None,
) -> Preset:
    """A preset by name, with what the caller gives put before it.

    Raises:
        SupportSetError: There is none of that name, or a setting makes no sense.
    """
    if name not in PRESETS:
        raise SupportSetError(f"expected preset among {tuple(PRESETS)}, got {name!r}.")
    preset = PRESETS[name]
    image_size = preset.image_size if image_size is None else image_size
    if isinstance(image_size, np.integer):
        image_size = int(image_size)
    if image_size != "auto" and not (isinstance(image_size, int) and MIN_IMAGE_SIZE <= image_size <= MAX_IMAGE_SIZE):
        raise SupportSetError(
            f"expected image_size='auto' or a whole number in {MIN_IMAGE_SIZE}..{MAX_IMAGE_SIZE}, got {image_size!r}."
        )
    budget = preset.budget if budget is None else budget
    if budget < 1:
        raise SupportSetError(
            f"expected a budget of at least 1 bank vector, got {budget}. The preset {name} has {preset.budget}."
        )
    return Preset(
        preset.views if views is None else views,
        image_size,
        budget,
        preset.precision if precision is None else precision,
    )
