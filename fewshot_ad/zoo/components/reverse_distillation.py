"""Reverse distillation: a student rebuilds a teacher's feature maps from a bottleneck, coarsest first.

What the bottleneck lets through is learned from good images, so the features of defects are not rebuilt.

Source: Deng & Li 2022, Anomaly Detection via Reverse Distillation from One-Class Embedding (RD4AD), section 3; layers,
loss and map as in the authors' public code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

Resize = Literal["halve", "keep", "double"]


@dataclass(frozen=True)
class Blueprint:
    """Residual blocks of a student, in the manner of its teacher.

    Attributes:
        decoder: Blocks of the decoder per stage, coarsest first.
        embedding: Blocks of the bottleneck.
        narrowing: By what a block's middle convolution is narrower than its output; 1 for blocks of two convolutions.
    """

    decoder: tuple[int, int, int] = (2, 2, 2)
    embedding: int = 2
    narrowing: int = 1


# By backbone; any other is rebuilt by the first one's blocks.
BLUEPRINTS = {
    "resnet18": Blueprint(),
    "resnet34": Blueprint((3, 4, 6), 3),
    "resnet50": Blueprint((3, 4, 6), 3, 4),
    "wide_resnet50_2": Blueprint((3, 4, 6), 3, 2),
}


class ResidualBlock(nn.Module):
    """A residual block that halves, keeps or doubles the size of a map.

    Args:
        inputs: Channels of its input.
        outputs: Channels of its output.
        resize: What it does to the size.
        narrowing: See `Blueprint`.
    """

    def __init__(self, inputs: int, outputs: int, resize: Resize, narrowing: int) -> None:
        super().__init__()
        if narrowing == 1:
            self.residual = nn.Sequential(
                *(_convolution(inputs, outputs, 3, resize), nn.BatchNorm2d(outputs), nn.ReLU()),
                *(_convolution(outputs, outputs, 3, "keep"), nn.BatchNorm2d(outputs)),
            )
        else:
            middle = outputs // narrowing
            self.residual = nn.Sequential(
                *(_convolution(inputs, middle, 1, "keep"), nn.BatchNorm2d(middle), nn.ReLU()),
                *(_convolution(middle, middle, 3, resize), nn.BatchNorm2d(middle), nn.ReLU()),
                *(_convolution(middle, outputs, 1, "keep"), nn.BatchNorm2d(outputs)),
            )
        self.skip: nn.Module = nn.Identity()
        if resize != "keep" or inputs != outputs:
            self.skip = nn.Sequential(_convolution(inputs, outputs, 1, resize), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, h, w) -> (N, outputs, h / 2, w / 2), (..., h, w) or (..., 2 h, 2 w)."""
        return F.relu(self.residual(x) + self.skip(x))


def _convolution(inputs: int, outputs: int, kernel: int, resize: Resize) -> nn.Module:
    if resize == "double":
        return nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False)
    layer = nn.Conv2d(inputs, outputs, kernel, 2 if resize == "halve" else 1, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class OneClassEmbedding(nn.Module):
    """Three feature maps brought to the size of the coarsest, joined, and embedded at half of that size.

    Args:
        channels: Channels of the maps, finest first.
        blueprint: Of its residual blocks.
    """

    def __init__(self, channels: Sequence[int], blueprint: Blueprint) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.from_fine = nn.Sequential(_halving(fine, middle), _halving(middle, coarse))
        self.from_middle = _halving(middle, coarse)
        blocks = [ResidualBlock(3 * coarse, 2 * coarse, "halve", blueprint.narrowing)]
        blocks += [
            ResidualBlock(2 * coarse, 2 * coarse, "keep", blueprint.narrowing) for _ in range(blueprint.embedding - 1)
        ]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps (N, C, h, w), each half as large as the one before -> (N, 2 C of the last, h / 2, w / 2 of the last)."""
        fine, middle, coarse = features
        embedded: torch.Tensor = self.blocks(torch.cat([self.from_fine(fine), self.from_middle(middle), coarse], 1))
        return embedded


def _halving(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(_convolution(inputs, outputs, 3, "halve"), nn.BatchNorm2d(outputs), nn.ReLU())


class Decoder(nn.Module):
    """The teacher's stages in reverse order. Arguments as for `OneClassEmbedding`, whose output it takes."""

    def __init__(self, channels: Sequence[int], blueprint: Blueprint) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        inputs = 2 * channels[-1]
        for outputs, count in zip(reversed(channels), blueprint.decoder, strict=True):
            blocks = [ResidualBlock(inputs, outputs, "double", blueprint.narrowing)]
            blocks += [ResidualBlock(outputs, outputs, "keep", blueprint.narrowing) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            inputs = outputs

    def forward(self, embedded: torch.Tensor) -> list[torch.Tensor]:
        """(N, 2 C, h, w) -> the rebuilt maps (N, C, 2 h, 2 w), ..., finest first."""
        rebuilt: list[torch.Tensor] = []
        for stage in self.stages:
            embedded = stage(embedded)
            rebuilt.insert(0, embedded)
        return rebuilt


def distillation_loss(teacher: Sequence[torch.Tensor], student: Sequence[torch.Tensor]) -> torch.Tensor:
    """Angles between whole feature maps, (N, C, h, w) per stage, summed over the stages: a mean over the images.

    Source: as in the authors' code; equation 2 takes the mean of the angles at the positions instead.
    """
    angles = [1 - F.cosine_similarity(t.flatten(1), s.flatten(1), dim=1) for t, s in zip(teacher, student, strict=True)]
    return torch.stack(angles).sum(0).mean()


def discrepancy_map(teacher: Sequence[torch.Tensor], student: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    """Angles between teacher and student at each position, enlarged, summed over the stages: (N, side, side).

    Source: Deng & Li 2022, equation 1; as enlarged and summed in the authors' code.
    """
    total = torch.zeros(len(teacher[0]), 1, side, side)
    for t, s in zip(teacher, student, strict=True):
        angle = 1 - F.cosine_similarity(t, s, dim=1)[:, None]
        total = total + F.interpolate(angle, (side, side), mode="bilinear", align_corners=True)
    return total[:, 0]
