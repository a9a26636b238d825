"""The network of MemSeg: differences to a memory of good images, fused over scales, and a U-Net's decoder.

Source: Yang, Wu, Liu & Feng 2022 (MemSeg, Sec. 3.3 and 3.4); Hou, Zhou & Feng 2021 (coordinate attention).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.zoo.components.residual_blocks import ResidualBlock

REDUCTION, LEAST_CHANNELS = 32, 8
FINE_CHANNELS = 48


class MemorySegmentation(nn.Module):
    """Marks anomalous pixels, given the features of a frozen encoder.

    Args:
        channels: Channels of the encoder's stages at strides 2, 4, 8 and 16.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        first, *compared = channels
        last = compared[-1]
        self.block = nn.Sequential(ResidualBlock(last, 2 * last, 0.5), ResidualBlock(2 * last, 2 * last))
        self.fuse = nn.ModuleList(_Fusion(count) for count in compared)
        self.down = nn.ModuleList(
            nn.Conv2d(coarse, fine, 3, padding=1) for fine, coarse in itertools.pairwise(compared)
        )
        self.narrow = nn.Conv2d(first, FINE_CHANNELS, 3, padding=1)
        # Coarse to fine; what comes from below is joined with as many channels of the same resolution.
        outputs = [*compared[::-1], FINE_CHANNELS, FINE_CHANNELS]
        self.up = nn.ModuleList(_up(2 * a, b) for a, b in zip([last, *outputs[:-1]], outputs, strict=True))
        self.output = nn.Conv2d(FINE_CHANNELS, 1, 3, padding=1)

    def forward(
        self, features: Sequence[torch.Tensor], memory: Sequence[torch.Tensor], own: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Segment images.

        Args:
            features: (N, C, h, w) of the four stages, finest first.
            memory: (M, C, h, w) of the good images, of the three stages after the first.
            own: (N, M) bool: which of the memory is the image itself, and not to be compared with.

        Returns:
            (N, 1, S, S) logits.
        """
        first, *compared = features
        differences = nearest_differences(compared, memory, own)
        fused = [fuse(torch.cat([f, d], 1)) for fuse, f, d in zip(self.fuse, compared, differences, strict=True)]
        for level in reversed(range(len(self.down))):
            fused[level] = fused[level] + _doubled(self.down[level](fused[level + 1]))
        weighed = [f * m for f, m in zip(fused, attention_maps(differences), strict=True)]
        x = self.block(compared[-1])
        for up, skip in zip(self.up[:-1], [*weighed[::-1], self.narrow(first)], strict=True):
            x = torch.cat([up(x), skip], 1)
        return self.output(self.up[-1](x))


def nearest_differences(
    features: Sequence[torch.Tensor], memory: Sequence[torch.Tensor], own: torch.Tensor | None = None
) -> list[torch.Tensor]:
    """Squared differences to the most alike image of the memory: the one with the smallest sum of them over all.

    Args:
        features: (N, C, h, w) per stage.
        memory: (M, C, h, w) per stage.
        own: (N, M) bool: what of the memory must not be taken, unless there is nothing else.

    Returns:
        (N, C, h, w) per stage.

    Source: Yang et al. 2022, Sec. 3.3.
    """
    distances = torch.zeros(len(features[0]), len(memory[0]))
    for f, m in zip(features, memory, strict=True):
        distances = distances + torch.cdist(f.flatten(1), m.flatten(1)).square()
    if own is not None:
        distances = distances.masked_fill(own, torch.inf)
    nearest = distances.argmin(1)
    return [(f - m[nearest]).square() for f, m in zip(features, memory, strict=True)]


def attention_maps(differences: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Spatial attention (N, 1, h, w) per stage: the mean difference, times the enlarged map of the next coarser stage.

    Args:
        differences: (N, C, h, w) per stage, finest first, each of twice the resolution of the next.

    Source: Yang et al. 2022, Sec. 3.3.
    """
    maps = [differences[-1].mean(1, keepdim=True)]
    for difference in differences[-2::-1]:
        maps.insert(0, difference.mean(1, keepdim=True) * _doubled(maps[0]))
    return maps


class CoordinateAttention(nn.Module):
    """Weighs channels by row and by column.

    Args:
        channels: Channels of the input.

    Source: Hou et al. 2021, eq. 4-8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(LEAST_CHANNELS, channels // REDUCTION)
        self.shared = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner), nn.Hardswish())
        self.rows, self.columns = (nn.Conv2d(inner, channels, 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) -> the same shape."""
        lines = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], 2)
        rows, columns = self.shared(lines).split(x.shape[2:], 2)
        return x * torch.sigmoid(self.rows(rows)) * torch.sigmoid(self.columns(columns.transpose(2, 3)))


class _Fusion(nn.Module):
    """Features and differences of one stage (N, 2 C, h, w) -> (N, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
            CoordinateAttention(2 * channels),
            nn.Conv2d(2 * channels, channels, 3, padding=1),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.UpsamplingBilinear2d(scale_factor=2),
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
