"""A square image in overlapping square tiles, judged one by one, and their maps joined again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch

Fusion: TypeAlias = Literal["mean", "max"]
# Places of tiles, in pixels: the cells of a map are as large.
CELL = 4


@dataclass(frozen=True)
class SquareTiles:
    """Where the tiles of an image lie.

    Attributes:
        image_side: Side of the image in pixels, a multiple of 4.
        tile_side: Side of each tile, a multiple of 4, at most `image_side`.
        overlap: Share of a tile's side that neighbors have in common, at least, 0 to below 1.
        fusion: What stands where tiles overlap: the mean of their maps, or the largest value.
    """

    image_side: int
    tile_side: int
    overlap: float
    fusion: Fusion = "mean"

    def starts(self) -> list[int]:
        """Where tiles begin, along either side: evenly, the last one at the image's end."""
        rest = self.image_side - self.tile_side
        count = 1 + int(np.ceil(rest / max(CELL, self.tile_side * (1 - self.overlap))))
        return sorted({round(place / CELL) * CELL for place in np.linspace(0, rest, count)})

    def cut(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """(N, C, S, S) -> the tiles (N, C, T, T), row by row."""
        side, starts = self.tile_side, self.starts()
        return [batch[..., top : top + side, left : left + side] for top in starts for left in starts]

    def joined(self, batch: torch.Tensor, judge: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The map (S / 4, S / 4) of an image (1, C, S, S), from those of its tiles.

        Args:
            batch: The image.
            judge: (1, C, T, T) -> (T / 4, T / 4).
        """
        starts, cells = [start // CELL for start in self.starts()], self.image_side // CELL
        heat = torch.full((cells, cells), -torch.inf if self.fusion == "max" else 0.0)
        count = torch.zeros_like(heat)
        for (top, left), tile in zip([(y, x) for y in starts for x in starts], self.cut(batch), strict=True):
            own = judge(tile)
            place = (slice(top, top + len(own)), slice(left, left + len(own)))
            heat[place] = torch.maximum(heat[place], own) if self.fusion == "max" else heat[place] + own
            count[place] += 1
        return heat if self.fusion == "max" else heat / count

    def drawn(self, rng: np.random.Generator) -> tuple[slice, slice]:
        """The rows and columns of a tile, anywhere in the image."""
        rest = self.image_side - self.tile_side
        top, left = (int(rng.integers(rest + 1)) for _ in range(2)) if rest else (0, 0)
        return slice(top, top + self.tile_side), slice(left, left + self.tile_side)
