"""The transformations that TDG's discriminators name: mirroring, shifts, quarter turns, gray; and their inverses.

Source: Sheynin, Benaim & Wolf 2021, supplement Sec. 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812

SHIFT = 0.15
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Transformation:
    """A mirror image, then a shift by 15% of the side, then quarter turns, then gray.

    Attributes:
        flip: Whether left and right change places.
        x: 1 = to the left, -1 = to the right, 0 = no shift.
        y: 1 = upwards, -1 = downwards, 0 = no shift.
        turns: Quarter turns, anticlockwise, 0 to 3.
        gray: Whether colors are lost.
    """

    flip: bool = False
    x: int = 0
    y: int = 0
    turns: int = 0
    gray: bool = False

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Square images (N, 3, S, S) -> the same shape; the border that a shift uncovers is filled by mirroring."""
        shift = int(SHIFT * batch.shape[-1])
        batch = _shifted(batch.flip(-1) if self.flip else batch, -self.x * shift, -self.y * shift, "reflect")
        batch = torch.rot90(batch, self.turns, (-2, -1))
        return (
            (batch * batch.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True).expand_as(batch) if self.gray else batch
        )

    def undo(self, heat: torch.Tensor, shift: int) -> torch.Tensor:
        """Move a map back to the place of the original image.

        Args:
            heat: (h, h) map of the transformed image, with the same center.
            shift: Size of the shift in pixels.

        Returns:
            (2, h, h): the map, and 1 where it is known or 0 where the shift has moved it outside.
        """
        pair = torch.rot90(torch.stack([heat, torch.ones_like(heat)]), -self.turns, (-2, -1))
        pair = _shifted(pair, self.x * shift, self.y * shift, "constant")
        return pair.flip(-1) if self.flip else pair


def _shifted(batch: torch.Tensor, right: int, down: int, mode: str) -> torch.Tensor:
    if right == 0 and down == 0:
        return batch
    height, width = batch.shape[-2:]
    padded = F.pad(batch, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode=mode)
    top, left = max(-down, 0), max(-right, 0)
    return padded[..., top : top + height, left : left + width]


def published_transformations() -> tuple[Transformation, ...]:
    """The 54 of the supplement, Sec. 1, in its order: the first 4 are the turns, the first 42 keep the colors."""
    make, both = Transformation, (False, True)
    return (
        *(make(a, b, c, d) for a in both for b in (0, 1) for c in (0, 1) for d in range(4)),
        *(make(a, b, -1) for a in both for b in (-1, 1, 0)),
        *(make(a, -1, c) for a in both for c in (0, 1)),
        *(make(a, turns=d, gray=True) for a in both for d in range(4)),
        *(make(x=b, gray=True) for b in (-1, 1)),
        *(make(y=c, gray=True) for c in (-1, 1)),
    )
