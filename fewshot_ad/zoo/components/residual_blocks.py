"""Residual blocks of two 3 x 3 convolutions, as in a ResNet18, that halve or double the resolution.

Source: He et al. 2016 (ResNet, Fig. 5 left; projection shortcuts, Sec. 3.3).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class ResidualBlock(nn.Module):
    """One block.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        scale: Its resolution over the input's: 0.5 (strided convolutions), 1, or 2 (transposed convolutions).
    """

    def __init__(self, inputs: int, outputs: int, scale: float = 1.0) -> None:
        super().__init__()
        self.change = _convolution(inputs, outputs, 3, scale)
        self.keep = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        self.shortcut: nn.Module = nn.Identity()
        if scale != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_convolution(inputs, outputs, 1, scale), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, h, w) -> (N, outputs, scale * h, scale * w); h and w even if it halves."""
        change = self.norms[1](self.keep(F.relu(self.norms[0](self.change(x)))))
        return F.relu(change + self.shortcut(x))


def _convolution(inputs: int, outputs: int, kernel: int, scale: float) -> nn.Module:
    padding = kernel // 2
    if scale == 2:
        return nn.ConvTranspose2d(inputs, outputs, kernel, 2, padding, output_padding=1, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, round(1 / scale), padding, bias=False)
