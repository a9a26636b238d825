"""The two networks of DiffusionAD: a U-Net that predicts noise, and a U-Net that marks the repaired pixels.

Sources: Ho et al. 2020 (DDPM: residual blocks, sinusoidal time embedding, self-attention at coarse sides); Dhariwal &
Nichol 2021 (multi-head attention, resampling inside residual blocks); Zavrtanik et al. 2021 (DRAEM: the segmentation
U-Net); widths and depths as in DiffusionAD's public configuration.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

MULTIPLIERS = (1, 1, 2, 2, 4, 4)
FIRST_ATTENTIVE = 3  # Level, at stride 8: sides 32, 16 and 8 of a 256-pixel image.
HEADS = 4
BLOCKS = 2
COARSEST = 8
SEGMENTATION_DOWN, SEGMENTATION_UP = (1, 2, 4, 8, 8, 8), (8, 4, 2, 1, 1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """A layer that starts with zeros, so its block starts as the identity."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class TimeEmbedding(nn.Module):
    """A time step as sines and cosines of geometric wavelengths, then two layers."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        half = channels // 2
        self.register_buffer("rates", torch.exp(-math.log(10_000) / half * torch.arange(half)), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * half, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        """(N,) int steps -> (N, width)."""
        phase = t[:, None].float() * self.rates[None]
        return self.layers(torch.cat([phase.sin(), phase.cos()], 1))


class ResidualBlock(nn.Module):
    """Two convolutions with the time step as input, and a shortcut; may halve or double the side in between."""

    def __init__(self, inputs: int, outputs: int, width: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Sequential(_norm(inputs), nn.SiLU())
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(width, outputs))
        self.second = nn.Sequential(_norm(outputs), nn.SiLU(), _zeroed(nn.Conv2d(outputs, outputs, 3, padding=1)))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) and (N, width) -> (N, outputs, H * scale, W * scale)."""
        hidden = self.convolution(self._resampled(self.first(x))) + self.time(time)[..., None, None]
        return self.shortcut(self._resampled(x)) + self.second(hidden)

    def _resampled(self, x: torch.Tensor) -> torch.Tensor:
        if self.scale < 1:
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0) if self.scale > 1 else x


class SelfAttention(nn.Module):
    """Multi-head self-attention between all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.queries_keys_values = nn.Conv2d(channels, 3 * channels, 1)
        self.output = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> the same shape."""
        n, channels, height, width = x.shape
        split = self.queries_keys_values(self.norm(x)).view(n, 3, HEADS, channels // HEADS, height * width)
        q, k, v = split.transpose(-1, -2).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.output(mixed.reshape(n, channels, height, width))


class _Level(nn.Module):
    """A residual block, and self-attention at the coarse levels unless it resamples."""

    def __init__(self, inputs: int, outputs: int, width: int, level: int, scale: float = 1.0) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, width, scale)
        attends = scale == 1.0 and level >= FIRST_ATTENTIVE
        self.attention: nn.Module = SelfAttention(outputs) if attends else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.attention(self.block(x, time))


class NoiseUNet(nn.Module):
    """Predicts the noise in a noisy image.

    Args:
        side: Side of the images in pixels, a multiple of 32. Levels go down to a side of 8, six levels at the most.
        channels: Channels of the finest level, a multiple of 4.
    """

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        width = 4 * channels
        levels = min(len(MULTIPLIERS), side.bit_length() - COARSEST.bit_length() + 1)
        self.time = TimeEmbedding(channels, width)
        self.input = nn.Conv2d(3, channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        inputs, skips = channels, [channels]
        for level, multiplier in enumerate(MULTIPLIERS[:levels]):
            for _ in range(BLOCKS):
                self.down.append(_Level(inputs, channels * multiplier, width, level))
                inputs = channels * multiplier
                skips.append(inputs)
            if level < levels - 1:
                self.down.append(_Level(inputs, inputs, width, level, 0.5))
                skips.append(inputs)
        self.middle_in, self.middle_out = (ResidualBlock(inputs, inputs, width) for _ in range(2))
        self.middle = SelfAttention(inputs)
        for level in reversed(range(levels)):
            for _ in range(BLOCKS + 1):
                self.up.append(_Level(inputs + skips.pop(), channels * MULTIPLIERS[level], width, level))
                inputs = channels * MULTIPLIERS[level]
            if level > 0:
                self.up.append(_Level(inputs, inputs, width, level, 2.0))
        self.output = nn.Sequential(_norm(inputs), nn.SiLU(), _zeroed(nn.Conv2d(inputs, 3, 3, padding=1)))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Noisy images (N, 3, S, S) and their time steps (N,) -> noise (N, 3, S, S)."""
        time = self.time(t)
        x = self.input(x)
        skips = [x]
        for level in self.down:
            x = level(x, time)
            skips.append(x)
        x = self.middle_out(self.middle(self.middle_in(x, time)), time)
        for level in self.up:
            x = level(x if level.block.scale > 1 else torch.cat([x, skips.pop()], 1), time)
        return self.output(x)


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_once(inputs, outputs), *_once(outputs, outputs))


def _once(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class SegmentationUNet(nn.Module):
    """Marks anomalous pixels, given an image and its repaired version.

    Args:
        channels: Channels of the finest of its six levels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        down, up = ([channels * m for m in multipliers] for multipliers in (SEGMENTATION_DOWN, SEGMENTATION_UP))
        self.down = nn.ModuleList([_twice(a, b) for a, b in zip([6, *down[:-1]], down, strict=True)])
        self.grow = nn.ModuleList([_once(a, b) for a, b in zip([down[-1], *up[:-1]], up, strict=True)])
        self.merge = nn.ModuleList([_twice(a + b, b) for a, b in zip(down[-2::-1], up, strict=True)])
        self.output = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, images: torch.Tensor, repaired: torch.Tensor) -> torch.Tensor:
        """Two batches (N, 3, S, S) in 0..1, S a multiple of 32 -> logits (N, 1, S, S)."""
        x, skips = torch.cat([images, repaired], 1), []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for grow, merge in zip(self.grow, self.merge, strict=True):
            x = grow(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True))
            x = merge(torch.cat([x, skips.pop()], 1))
        return self.output(x)
