"""Large inputs in tiles: the network runs on one part after another, and the embeddings are those of a single pass.

A patch embedding depends on its surroundings only, so far as the network is made of convolutions. Each tile therefore
reaches beyond what is kept of it by a halo; at the input's own edges there is none, and the network pads there as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TypeAlias

import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array

# An input of at most this side, or of its area, takes one pass; so does each tile. At 4096 x 3000, tiles of up to 1696
# pixels would take three quarters of the processor time and 180 MB more.
TILE_SIDE = 1280
# In units of the coarsest stride. At 16 pixels it is 192, which is as far as EfficientNet-Lite0 sees: patches are those
# of a single pass up to rounding, for ConvNeXt-Atto up to 0.03% of their length. At 160 pixels Lite0 differs by 0.1%,
# at 128 by 2%, at 64 by 15%; see `benchmarks/large_images.py`.
HALO_STRIDES = 12
# Largest difference of an embedding, as a share of its length, at which tiles are taken for the whole.
TOLERANCE = 0.01

Run: TypeAlias = Callable[[Uint8Array], tuple[Float32Array, ...]]


@dataclass(frozen=True)
class Tiling:
    """How an input is cut into overlapping tiles of one size, so that the network is compiled once.

    Attributes:
        input_hw: Height and width of the input in pixels.
        tile_hw: Of each tile.
        halo: How far a tile reaches beyond what is kept of it, at least, where the input goes on, in pixels.
    """

    input_hw: tuple[int, int]
    tile_hw: tuple[int, int]
    halo: int

    @classmethod
    def fit(cls, input_hw: tuple[int, int], multiple: int, side: int = TILE_SIDE) -> Tiling | None:
        """The smallest tiles of the least number.

        Args:
            input_hw: Height and width of the input, multiples of `multiple`.
            multiple: Of the encoder, see `EncoderSpec.multiple`.
            side: Largest side of a tile in pixels.

        Returns:
            None where the input takes one pass.
        """
        height, width = input_hw
        if height * width <= side**2:
            return None
        halo = HALO_STRIDES * multiple
        return cls(input_hw, (_tile_side(height, multiple, halo, side), _tile_side(width, multiple, halo, side)), halo)

    def run(self, image: Uint8Array, run: Run) -> tuple[Float32Array, ...]:
        """What `run` gives for the whole input, put together from its tiles.

        Args:
            image: (H, W, 3) uint8 of `input_hw`.
            run: Gives one array (h, w, ...) per level for a tile.

        Returns:
            One array (H / stride, W / stride, ...) float32 per level.
        """
        levels: list[Float32Array] = []
        for y, x in product(*(self._spans(axis) for axis in (0, 1))):
            tile = image[y.start : y.start + self.tile_hw[0], x.start : x.start + self.tile_hw[1]]
            parts = run(np.ascontiguousarray(tile))
            if not levels:
                levels = [np.empty(self._grid_hw(part) + part.shape[2:], np.float32) for part in parts]
            for level, part in zip(levels, parts, strict=True):
                stride = self.tile_hw[0] // part.shape[0]
                level[y.target(stride), x.target(stride)] = part[y.kept(stride), x.kept(stride)]
        return tuple(levels)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self._spans(0)) * len(self._spans(1))

    def _grid_hw(self, part: Float32Array) -> tuple[int, ...]:
        return tuple(n * g // t for n, g, t in zip(self.input_hw, part.shape[:2], self.tile_hw, strict=True))

    def _spans(self, axis: int) -> list[_Span]:
        length, side = self.input_hw[axis], self.tile_hw[axis]
        # The last one is shifted inward instead of being smaller.
        starts = [*range(0, length - side, side - 2 * self.halo), length - side]
        seams = [0, *(start + side - self.halo for start in starts[:-1]), length]
        return [_Span(start, *kept) for start, kept in zip(starts, pairwise(seams), strict=True)]


@dataclass(frozen=True)
class _Span:
    """A tile along one axis, in pixels of the input: where it starts, and from where to where it is kept."""

    start: int
    first: int
    end: int

    def target(self, stride: int) -> slice:
        """Its patches in the whole."""
        return slice(self.first // stride, self.end // stride)

    def kept(self, stride: int) -> slice:
        """Its patches in the tile."""
        return slice((self.first - self.start) // stride, (self.end - self.start) // stride)


def _tile_side(length: int, multiple: int, halo: int, side: int) -> int:
    if length <= side:
        return length
    # At least one stride of each tile is kept.
    side = max(side // multiple * multiple, 2 * halo + multiple)
    count = -(-(length - 2 * halo) // (side - 2 * halo))
    return min(side, -(-(length + 2 * halo * (count - 1)) // (count * multiple)) * multiple)


def is_local(run: Run, multiple: int) -> bool:
    """Whether patch embeddings depend on nothing beyond the halo.

    Two windows of one picture show the same part of it at different places, beside something else: white in one, black
    in the other. Attention over the whole image, squeeze-and-excitation and registration see that.

    Args:
        run: Gives one array (h, w, d) per level for an input.
        multiple: Of the encoder.
    """
    halo = HALO_STRIDES * multiple
    width = 3 * halo + 2 * multiple
    picture = np.random.default_rng(0).integers(0, 256, (8 * multiple, width + halo, 3), np.uint8)
    picture[:, :halo], picture[:, width:] = 255, 0
    lefts, rights = (run(np.ascontiguousarray(picture[:, start : start + width])) for start in (0, halo))
    for left, right in zip(lefts, rights, strict=True):
        stride = width // left.shape[1]
        expected = left[:, 2 * halo // stride : (width - halo) // stride]
        got = right[:, halo // stride : (width - 2 * halo) // stride]
        length = np.linalg.norm(expected, axis=2)
        if bool((np.linalg.norm(got - expected, axis=2) > TOLERANCE * length).any()):
            return False
    return True
