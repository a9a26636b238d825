"""Presets: settings that go together, from fast to accurate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fewshot_ad.encoder.engine import Precision
from fewshot_ad.errors import SupportSetError
from fewshot_ad.support import ViewsSpec

PresetName: TypeAlias = Literal["fast", "balanced", "accurate"]


@dataclass(frozen=True)
class Preset:
    """Settings of `Inspector.from_support`; what the caller gives goes before them.

    Attributes:
        views: Augmentations of the support photographs.
        image_size: Working scale in pixels, or `"auto"`.
        budget: Bank vectors a level.
        precision: Of the network.
    """

    views: ViewsSpec
    image_size: int | Literal["auto"]
    budget: int
    precision: Precision | Literal["auto"]


# Figures: benchmarks/presets.py, in RESULTS.md.
PRESETS: dict[PresetName, Preset] = {
    "fast": Preset("hflip,vflip,rotate=180", 256, 1000, "auto"),
    "balanced": Preset("auto", "auto", 2000, "f32"),
    # The network reads any size as it is, so a larger scale needs no tiles.
    "accurate": Preset("hflip,vflip,rotate=45/90/135/180/225/270/315", 384, 8000, "f32"),
}


def preset(name: PresetName) -> Preset:
    """A preset by name.

    Raises:
        SupportSetError: There is none of that name.
    """
    if name not in PRESETS:
        raise SupportSetError(f"expected preset among {tuple(PRESETS)}, got {name!r}.")
    return PRESETS[name]
