"""EfficientAD's autoencoder: it sees the whole image, so it detects components that are missing or misplaced.

Source: Batzner, Heckler & König 2024 (EfficientAD, WACV), section 3.3 and the autoencoder's table in the appendix.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn

from fewshot_ad.zoo.components.pdn import BORDER, CHANNELS
from fewshot_ad.zoo.components.tensors import standardize


class Autoencoder(nn.Module):
    """Image -> the teacher's features, through a bottleneck of 64 numbers.

    Args:
        side: Side of the image in pixels, a multiple of 32; the paper's table is for 256, its sizes are scaled.
        channels: Channels of the output.
    """

    def __init__(self, side: int, channels: int = CHANNELS) -> None:
        super().__init__()
        widths = (3, 32, 32, 64, 64, 64)
        encoder: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            encoder += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder, nn.Conv2d(64, 64, side // 32))
        grids = (side // 64 - 1, side // 32, side // 16 - 1, side // 8, side // 4 - 1, side // 2 - 1)
        decoder: list[nn.Module] = []
        for grid in grids:
            decoder += [_enlarge(max(1, grid)), nn.Conv2d(64, 64, 4, padding=2), nn.ReLU(), nn.Dropout(0.2)]
        decoder += [_enlarge(side // 4 - 2 * BORDER), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
        self.decoder = nn.Sequential(*decoder, nn.Conv2d(64, channels, 3, padding=1))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, side, side) in 0..1 -> (N, C, side / 4 - 8, side / 4 - 8)."""
        return self.decoder(self.encoder(standardize(batch)))


def _enlarge(grid: int) -> nn.Module:
    return nn.Upsample(size=(grid, grid), mode="bilinear", align_corners=False)
