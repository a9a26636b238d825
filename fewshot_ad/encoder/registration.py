"""Spatial transformers: warp the feature map of each stage into a common pose; the warp can be inverted.

Needs the extra `torch`.

Sources: Jaderberg et al. 2015 (Spatial Transformer Networks, eq. 1 and 3-5); Huang et al. 2022 (RegAD, section 3.1: a
transformer after each of the first three stages, feature maps warped back by the inverse transform).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.errors import WeightsError

Mode: TypeAlias = Literal[
    "rotation",
    "scale",
    "translation",
    "shear",
    "rotation+scale",
    "translation+scale",
    "rotation+translation",
    "rotation+translation+scale",
    "affine",
]
# The parts that each mode's transform is composed of.
PARTS: dict[str, tuple[str, ...]] = {
    "rotation": ("rotation",),
    "scale": ("scale",),
    "translation": ("translation",),
    "shear": ("shear",),
    "rotation+scale": ("rotation", "scale"),
    "translation+scale": ("translation", "scale"),
    "rotation+translation": ("rotation", "translation"),
    "rotation+translation+scale": ("rotation", "translation", "scale"),
    "affine": ("affine",),
}
# Number of parameters of each part: angle, two log scales, two shifts, shear; the six coefficients of an affine map.
SIZES = {"rotation": 1, "scale": 2, "translation": 2, "shear": 1, "affine": 6}
DEFAULT_MODE: Mode = "rotation+scale"
# Side of the grid that the localization net reads, and its number of channels.
GRID = 8
WIDTH = 32


class SpatialTransformer(nn.Module):
    """Localization net -> affine transform -> warped feature map; the identity at initialization.

    Args:
        channels: Channels of the feature map.
        mode: The parts that the transform is composed of; see `PARTS`.

    Raises:
        WeightsError: The mode is not in `PARTS`.
    """

    def __init__(self, channels: int, mode: Mode = DEFAULT_MODE) -> None:
        super().__init__()
        if mode not in PARTS:
            raise WeightsError(f"expected a registration mode among {', '.join(PARTS)}, got {mode!r}.")
        self.mode = mode
        self.localization = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()
        )
        self.regression = nn.Sequential(
            nn.Linear(WIDTH * GRID * GRID, WIDTH), nn.ReLU(), nn.Linear(WIDTH, sum(SIZES[p] for p in PARTS[mode]))
        )
        last = self.regression[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def transform(self, features: torch.Tensor) -> torch.Tensor:
        """The estimated (N, 2, 3) float32 transforms of (N, C, H, W) feature maps."""
        # Pooled first: a pose needs no fine detail, and the convolutions then cost the same for any image size.
        pooled = self.localization(adaptive_pool(features.float(), GRID * 2))
        values = self.regression(F.avg_pool2d(pooled, 2).flatten(1)).float()
        parameters, start = {}, 0
        for part in PARTS[self.mode]:
            parameters[part] = values[:, start : start + SIZES[part]]
            start += SIZES[part]
        zero = torch.zeros_like(values[:, 0])
        if "affine" in parameters:
            a = parameters["affine"]
            rows = [a[:, 0] + 1, a[:, 1], a[:, 2], a[:, 3], a[:, 4] + 1, a[:, 5]]
            return torch.stack(rows, dim=1).view(-1, 2, 3)
        angle = parameters["rotation"][:, 0] if "rotation" in parameters else zero
        scale = (
            torch.exp(parameters["scale"]) if "scale" in parameters else torch.ones_like(torch.stack([zero, zero], 1))
        )
        shift = torch.tanh(parameters["translation"]) if "translation" in parameters else torch.stack([zero, zero], 1)
        shear = parameters["shear"][:, 0] if "shear" in parameters else zero
        cos, sin = torch.cos(angle), torch.sin(angle)
        # rotation @ shear @ scale
        rows = [
            cos * scale[:, 0],
            (cos * shear - sin) * scale[:, 1],
            shift[:, 0],
            sin * scale[:, 0],
            (sin * shear + cos) * scale[:, 1],
            shift[:, 1],
        ]
        return torch.stack(rows, dim=1).view(-1, 2, 3)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, C, H, W) feature maps -> the warped feature maps and their (N, 2, 3) transforms."""
        transform = self.transform(features)
        return warp(features, transform), transform


def adaptive_pool(features: torch.Tensor, side: int) -> torch.Tensor:
    """Exact area averages on a side x side grid, for any input size.

    The same values as `torch.nn.functional.adaptive_avg_pool2d` where the size is a multiple of `side`; written as two
    matrix products, because ONNX export of torch's function needs a fixed input size.

    Args:
        features: (N, C, H, W) float.
        side: Side of the result.

    Returns:
        (N, C, side, side).
    """

    def weights(length: int) -> torch.Tensor:
        cell = length / side
        first = torch.arange(side, device=features.device, dtype=features.dtype)[:, None] * cell
        pixel = torch.arange(length, device=features.device, dtype=features.dtype)[None]
        overlap = torch.minimum(first + cell, pixel + 1) - torch.maximum(first, pixel)
        return overlap.clamp_min(0) / cell

    return weights(features.shape[2]) @ features @ weights(features.shape[3]).transpose(0, 1)


def warp(features: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
    """Sample a feature map at transformed coordinates: bilinear, borders mirrored.

    Args:
        features: (N, C, H, W) float.
        transform: (N, 2, 3) float. The result at p is the feature at transform(p). Coordinates are relative to the
            center, in units of half the geometric mean of the sides, so that a rotation distorts no shape whatever
            the aspect ratio.

    Returns:
        (N, C, H, W).
    """
    height, width = features.shape[2:]
    y = (torch.arange(height, device=features.device, dtype=torch.float32) + 0.5) * (2 / height) - 1
    x = (torch.arange(width, device=features.device, dtype=torch.float32) + 0.5) * (2 / width) - 1
    # As tensors: ONNX export keeps sizes dynamic in tensor arithmetic only.
    stretch = torch.sqrt(torch.ones_like(x).sum() / torch.ones_like(y).sum())
    across = (x * stretch)[None, None, :]
    down = (y / stretch)[None, :, None]
    t = transform.float()[:, :, :, None, None]
    u = (t[:, 0, 0] * across + t[:, 0, 1] * down + t[:, 0, 2]) / stretch
    v = (t[:, 1, 0] * across + t[:, 1, 1] * down + t[:, 1, 2]) * stretch
    grid = torch.stack([u, v], dim=3)
    warped = F.grid_sample(features.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return warped.to(features.dtype)


def invert(transform: torch.Tensor) -> torch.Tensor:
    """Inverse of (N, 2, 3) affine transforms."""
    a, b, tx = transform[:, 0, 0], transform[:, 0, 1], transform[:, 0, 2]
    c, d, ty = transform[:, 1, 0], transform[:, 1, 1], transform[:, 1, 2]
    determinant = a * d - b * c
    return (
        torch.stack(
            [
                torch.stack([d, -b, b * ty - d * tx], dim=1),
                torch.stack([-c, a, c * tx - a * ty], dim=1),
            ],
            dim=1,
        )
        / determinant[:, None, None]
    )


def compose(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """The transform p -> outer(inner(p)), all (N, 2, 3)."""
    linear = outer[:, :, :2] @ inner[:, :, :2]
    shift = outer[:, :, :2] @ inner[:, :, 2:] + outer[:, :, 2:]
    return torch.cat([linear, shift], dim=2)
