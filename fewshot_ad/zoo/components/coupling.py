"""Normalizing flows of coupling blocks, over vectors or over the positions of maps.

Source: Dinh et al. 2017 (RealNVP); as in Rudolph, Wandt & Rosenhahn 2021 (DifferNet) and Rudolph et al. 2023 (AST).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import nn

# Builds the inner network of a coupling block from its numbers of input and output channels.
Inner: TypeAlias = Callable[[int, int], nn.Module]


def soft_clamp(h: torch.Tensor, clamp: float) -> torch.Tensor:
    """Any real -> -clamp..clamp, with slope 2 / pi at 0. Source: Rudolph et al. 2021, equation 2."""
    return 2 * clamp / math.pi * torch.atan(h / clamp)


class Coupling(nn.Module):
    """A permutation of the channels, then each half scaled and shifted by a network of the other half.

    Args:
        channels: Number of features.
        inner: The inner networks.
        generator: Draws the permutation.
        clamp: Largest logarithm of a scale.
        condition: Channels that the inner networks get besides; they are not transformed.

    Source: Rudolph et al. 2021, section 3.2; the condition as in Rudolph et al. 2023.
    """

    def __init__(
        self, channels: int, inner: Inner, generator: torch.Generator, clamp: float, condition: int = 0
    ) -> None:
        super().__init__()
        self.halves = (channels // 2, channels - channels // 2)
        self.clamp = clamp
        self.register_buffer("order", torch.randperm(channels, generator=generator))
        self.from_first = inner(self.halves[0] + condition, 2 * self.halves[1])
        self.from_second = inner(self.halves[1] + condition, 2 * self.halves[0])

    def forward(
        self, features: torch.Tensor, condition: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and condition (N, C, ...) -> (N, C, ...) and the log-determinant of the Jacobian, (N, ...)."""
        first, second = features[:, self.order].split(self.halves, 1)
        scale_second, shift = self._affine(self.from_first, first, condition)
        second = second * scale_second.exp() + shift
        scale_first, shift = self._affine(self.from_second, second, condition)
        first = first * scale_first.exp() + shift
        return torch.cat([first, second], 1), scale_first.sum(1) + scale_second.sum(1)

    def inverse(self, latent: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """Latent (N, C, ...) -> the features (N, C, ...) from which `forward` computes it."""
        first, second = latent.split(self.halves, 1)
        scale, shift = self._affine(self.from_second, second, condition)
        first = (first - shift) * (-scale).exp()
        scale, shift = self._affine(self.from_first, first, condition)
        second = (second - shift) * (-scale).exp()
        return torch.cat([first, second], 1)[:, self.order.argsort()]

    def _affine(
        self, inner: nn.Module, half: torch.Tensor, condition: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logarithm of the scale, and shift, of the other half."""
        scale, shift = inner(half if condition is None else torch.cat([half, condition], 1)).chunk(2, 1)
        return soft_clamp(scale, self.clamp), shift


class Flow(nn.Module):
    """Coupling blocks one after the other.

    Args:
        channels: As for `Coupling`, like `generator`, `clamp` and `condition`.
        inners: The inner networks of each block.
        generator: Draws the permutations.
        clamp: Largest logarithm of a scale.
        condition: Channels of the condition.
    """

    def __init__(
        self, channels: int, inners: Sequence[Inner], generator: torch.Generator, clamp: float, condition: int = 0
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Coupling(channels, inner, generator, clamp, condition) for inner in inners)

    def forward(
        self, features: torch.Tensor, condition: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and condition (N, C, ...) -> latent (N, C, ...) and the log-determinant, (N, ...)."""
        total = features.new_zeros(())
        for block in self.blocks:
            features, log_determinant = block(features, condition)
            total = total + log_determinant
        return features, total


def surprise(latent: torch.Tensor, log_determinant: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the features without its constant: (N, C, ...) and (N, ...) -> (N, ...).

    Source: Rudolph et al. 2021, equation 5.
    """
    return latent.square().sum(1) / 2 - log_determinant
