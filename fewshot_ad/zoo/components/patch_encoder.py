"""Hierarchical patch encoder: one network for small patches, and one that joins four of its outputs for big patches.

Source: Yi & Yoon 2020, Patch SVDD (section 3.3); layers as in the authors' public code.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

# Sides of the patches, and distances between neighboring ones of a grid, in pixels.
SMALL, SMALL_STRIDE = 32, 4
BIG, BIG_STRIDE = 64, 16
# Channels between the convolutions for small patches: without padding, eight of them bring 32 pixels down to one.
WIDTHS = (3, 32, 64, 128, 128, 64, 32, 32)
JOINED = 128
SLOPE = 0.1
# Of the first convolution, and so between the small patches of a dense map.
FIRST_STRIDE = 2


class PatchEncoder(nn.Module):
    """Encodes small and big patches.

    Args:
        dimensions: Length of an embedding; its values are in -1..1.
        deviation: Standard deviation of the inputs, which the first weights suit; they are those of He et al. 2015.
    """

    def __init__(self, dimensions: int, deviation: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(itertools.pairwise((*WIDTHS, dimensions))):
            layers += [nn.Conv2d(inputs, outputs, 3, FIRST_STRIDE if number == 0 else 1), nn.LeakyReLU(SLOPE)]
        self.small = nn.Sequential(*layers[:-1], nn.Tanh())
        self.corners = nn.Conv2d(dimensions, JOINED, 2)
        self.rest = nn.Sequential(nn.LeakyReLU(SLOPE), nn.Conv2d(JOINED, dimensions, 1), nn.Tanh())
        # PyTorch's own first weights shrink what differs between patches in each of ten layers, to next to nothing.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, SLOPE)
                nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.small[0].weight /= deviation

    def encode_small(self, patches: torch.Tensor) -> torch.Tensor:
        """(N, 3, 32, 32) -> (N, D)."""
        return self.small(patches).flatten(1)

    def encode_big(self, patches: torch.Tensor) -> torch.Tensor:
        """(N, 3, 64, 64) -> (N, D), from the embeddings of the four corners."""
        corners = patches.unfold(2, SMALL, SMALL).unfold(3, SMALL, SMALL).permute(0, 2, 3, 1, 4, 5)
        embedded = self.encode_small(corners.flatten(0, 2))
        joined = self.corners(embedded.view(len(patches), 2, 2, -1).permute(0, 3, 1, 2))
        return self.rest(joined).flatten(1)

    def grids(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings of the patches of whole images, the same as one by one but with shared work.

        Args:
            batch: (N, 3, S, S), S a multiple of 16 and at least 64.

        Returns:
            Small patches, (N, D, (S - 32) / 4 + 1, the same), and big patches, (N, D, (S - 64) / 16 + 1, the same).
        """
        dense = self.small(batch)
        every = SMALL_STRIDE // FIRST_STRIDE
        joined = F.conv2d(
            dense,
            self.corners.weight,
            self.corners.bias,
            stride=BIG_STRIDE // FIRST_STRIDE,
            dilation=SMALL // FIRST_STRIDE,
        )
        return dense[..., ::every, ::every], self.rest(joined)


def spread(grid: torch.Tensor, patch: int, stride: int) -> torch.Tensor:
    """At each pixel, the mean over the patches that cover it.

    Args:
        grid: (h, w), one value for each patch.
        patch: Side of the patches.
        stride: Distance between neighboring ones, at most `patch`.

    Returns:
        ((h - 1) stride + patch, (w - 1) stride + patch).

    Source: Yi & Yoon 2020, section 3.4.
    """
    ones = torch.ones(1, 1, patch, patch)
    total, covering = (
        F.conv_transpose2d(values[None, None], ones, stride=stride)[0, 0] for values in (grid, torch.ones_like(grid))
    )
    return total / covering
