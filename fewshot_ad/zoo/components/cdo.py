"""Collaborative discrepancy optimization (CDO): noise patches, and a loss that separates them from good places.

Source: Cao, Xu, Liu & Shen 2023, Collaborative Discrepancy Optimization for Reliable Image Anomaly Localization (IEEE
TII).
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import BoolArray, Uint8Array

# The largest squared distance between two unit vectors.
LARGEST = 4.0


def noise_patches(image: Uint8Array, rng: np.random.Generator) -> tuple[Uint8Array, BoolArray]:
    """One to four rectangles of white noise.

    Args:
        image: (H, W, 3) uint8.
        rng: Source of the places, sizes (sides of 1/20 to 1/5 of the image's) and noise.

    Returns:
        The image with the patches, and their mask (H, W) bool.

    Source: section on synthetic anomalies.
    """
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.bool_)
    for _ in range(int(rng.integers(1, 5))):
        h, w = (max(2, round(float(rng.uniform(0.05, 0.2)) * side)) for side in (height, width))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        mask[top : top + h, left : left + w] = True
    noise = rng.integers(0, 256, image.shape, np.uint8)
    return np.where(mask[..., None], noise, image), mask


def cdo_loss(
    teacher: torch.Tensor, student: torch.Tensor, defective: torch.Tensor, gamma: float, margin: float
) -> torch.Tensor:
    """Small discrepancies on good positions, large ones on defective positions; where both overlap weighs most.

    A good position weighs (d / mean d) ** gamma and a defective one (d / mean d) ** -gamma, the means over positions
    of its kind. With `margin` 4 the gradient is the paper's: no two unit vectors are farther apart.

    Args:
        teacher: (N, C, h, w).
        student: (N, C, h, w).
        defective: (N, h, w) bool.
        gamma: Exponent of the weights; 0 weighs all positions alike.
        margin: Discrepancy from which a defective position costs nothing, in 0..4.

    Source: the margin optimization and overlap optimization modules.
    """
    d = (F.normalize(teacher, dim=1) - F.normalize(student, dim=1)).square().sum(1)
    good, bad = d[~defective], d[defective]
    total, weights = d.new_zeros(()), d.new_zeros(())
    for distances, cost, exponent in ((good, good, gamma), (bad, (margin - bad).clamp_min(0), -gamma)):
        if len(distances) > 0:
            constant = distances.detach().clamp_min(1e-6)
            weight = (constant / constant.mean()) ** exponent
            total = total + (weight * cost).sum()
            weights = weights + weight.sum()
    return total / weights
