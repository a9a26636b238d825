"""Views and working scale of a product, chosen from its support set alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fewshot_ad.encoder import Encoder
from fewshot_ad.memory_bank import Progress
from fewshot_ad.scoring import ScoringConfig
from fewshot_ad.support import SupportImage, View, ViewsSpec, parse_views

DEFAULT_IMAGE_SIZE = 256


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        views: Views besides the photographs themselves.
        image_size: Working scale in pixels.
        reasons: One sentence a choice that was made automatically.
    """

    views: tuple[View, ...]
    image_size: int
    reasons: tuple[str, ...]


def choose(
    images: Sequence[SupportImage],
    views: ViewsSpec,
    image_size: int | Literal["auto"],
    encoder: Encoder,
    scoring: ScoringConfig,
    seed: int,
    progress: Progress | None = None,
) -> Choice:
    v = parse_views("hflip,vflip,rotate=180" if views == "auto" else views)
    return Choice(v, DEFAULT_IMAGE_SIZE if image_size == "auto" else image_size, ())
