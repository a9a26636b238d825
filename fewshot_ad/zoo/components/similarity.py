"""How alike two images look: structural similarity (SSIM), and gradient magnitude similarity (GMS) at several scales.

Sources: Wang, Bovik, Sheikh & Simoncelli 2004 (SSIM, eq. 13); Xue, Zhang, Mou & Bovik 2014 (GMS, eq. 1-3); Zavrtanik,
Kristan & Skočaj 2021 (RIAD: GMS at several scales, and the loss).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

# SSIM: K1 and K2 for values in 0..1, and the window, a Gaussian cut off at 11 pixels.
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
# GMS: 170 for values in 0..255, which is 0.0026 for values in 0..1.
GMS_C = 0.0026


def ssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Structural similarity at each pixel and color; beyond the border, images repeat their outermost pixels.

    Args:
        first: (N, C, H, W) in 0..1.
        second: The same shape.

    Returns:
        (N, C, H, W), at most 1, which is alike.
    """
    moments = torch.cat([first, second, first * first, second * second, first * second])
    mean_1, mean_2, square_1, square_2, product = _gaussian_mean(moments).chunk(5)
    variance_1, variance_2 = square_1 - mean_1 * mean_1, square_2 - mean_2 * mean_2
    covariance = product - mean_1 * mean_2
    luminance = (2 * mean_1 * mean_2 + SSIM_C1) / (mean_1 * mean_1 + mean_2 * mean_2 + SSIM_C1)
    return luminance * (2 * covariance + SSIM_C2) / (variance_1 + variance_2 + SSIM_C2)


def gms(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Gradient magnitude similarity at each pixel and color.

    Args:
        first: (N, C, H, W) in 0..1.
        second: The same shape.

    Returns:
        (N, C, H, W) in 0..1, 1 is alike.
    """
    one, two = _gradient_magnitude(torch.cat([first, second])).chunk(2)
    return (2 * one * two + GMS_C) / (one * one + two * two + GMS_C)


def msgms_map(first: torch.Tensor, second: torch.Tensor, scales: int) -> torch.Tensor:
    """1 - GMS at each pixel, averaged over the colors, and over the scales at full size.

    Args:
        first: (N, C, H, W) in 0..1, sides of at least 2 ** (scales - 1).
        second: The same shape.
        scales: Number of scales, each half as large as the one before.

    Returns:
        (N, H, W) in 0..1, 0 is alike.
    """
    levels = [_dissimilarity(*pair) for pair in _pyramid(first, second, scales)]
    full = [F.interpolate(level, first.shape[2:], mode="bilinear", align_corners=False) for level in levels]
    return torch.stack(full).mean(0)[:, 0]


def restoration_loss(
    restored: torch.Tensor, original: torch.Tensor, scales: int, gms_weight: float, ssim_weight: float
) -> torch.Tensor:
    """Mean squared error, plus weighted means of 1 - GMS over pixels and scales and of 1 - SSIM over pixels.

    Args:
        restored: (N, C, H, W), about in 0..1.
        original: The same shape, in 0..1.
        scales: Scales of the GMS, as for `msgms_map`.
        gms_weight: Weight of the GMS.
        ssim_weight: Weight of the SSIM.
    """
    levels = [_dissimilarity(*pair).mean() for pair in _pyramid(restored, original, scales)]
    gradients = torch.stack(levels).mean()
    structure = 1 - ssim(restored, original).mean()
    return F.mse_loss(restored, original) + gms_weight * gradients + ssim_weight * structure


def _pyramid(first: torch.Tensor, second: torch.Tensor, scales: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Both images at full size, a half, a quarter, ..."""
    pairs = [(first, second)]
    for _ in range(scales - 1):
        pairs.append((F.avg_pool2d(pairs[-1][0], 2), F.avg_pool2d(pairs[-1][1], 2)))
    return pairs


def _dissimilarity(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W)."""
    return 1 - gms(first, second).mean(1, keepdim=True)


def _gaussian_mean(batch: torch.Tensor) -> torch.Tensor:
    """Mean around each pixel (N, C, H, W), in the window of the SSIM."""
    steps = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=batch.dtype)
    window = torch.exp(-0.5 * (steps / SSIM_SIGMA) ** 2)
    window = window / window.sum()
    planes = F.pad(batch.flatten(0, 1)[:, None], (SSIM_RADIUS,) * 4, mode="replicate")
    down = F.conv2d(planes, window.view(1, 1, -1, 1))
    return F.conv2d(down, window.view(1, 1, 1, -1)).view_as(batch)


def _gradient_magnitude(batch: torch.Tensor) -> torch.Tensor:
    """Length of the gradient at each pixel (N, C, H, W), by the Prewitt filters divided by 3."""
    across = torch.tensor([[1.0, 0.0, -1.0]] * 3, dtype=batch.dtype) / 3
    planes = F.pad(batch.flatten(0, 1)[:, None], (1,) * 4, mode="replicate")
    slopes = F.conv2d(planes, torch.stack([across, across.T])[:, None])
    # The root of 0 has no gradient.
    return slopes.square().sum(1, keepdim=True).clamp_min(1e-20).sqrt().view_as(batch)
