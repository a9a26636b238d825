"""Collaborative discrepancy optimization (CDO): noise patches, and a loss that separates them from good places.

Source: Cao, Xu, Liu & Shen 2023, Collaborative Discrepancy Optimization for Reliable Image Anomaly Localization (IEEE
TII).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import BoolArray, Uint8Array

# The largest squared distance between two unit vectors.
LARGEST = 4.0


Noise: TypeAlias = Literal["gaussian", "uniform"]
# Of the Gaussian noise, in levels of gray, so that most of it lies within 0..255; the document does not state it.
NOISE_MEAN, NOISE_DEVIATION = 127.5, 60.0
MOST_PATCHES = 4
# A foreground of less than this share of the image is not believed.
LEAST_FOREGROUND = 0.02


@dataclass(frozen=True)
class NoisePatches:
    """Drawn defects: squares of noise on some of the images.

    Attributes:
        share: Share of the images that get some, 0..1.
        sides: Smallest and largest side of a square, in shares of the image's shorter side.
        noise: Its distribution, per pixel and channel.

    Source: one to four patches, their share and sides as in EfficientAD + CDO.
    """

    share: float = 0.4
    sides: tuple[float, float] = (1 / 40, 1 / 10)
    noise: Noise = "gaussian"

    def draw(
        self, image: Uint8Array, rng: np.random.Generator, part: BoolArray | None = None
    ) -> tuple[Uint8Array, BoolArray]:
        """An image, perhaps with patches, and their mask.

        Args:
            image: (H, W, 3) uint8.
            rng: Source of everything random.
            part: (H, W) bool, where centers of patches may lie, see `foreground`; None is everywhere.

        Returns:
            The image (H, W, 3) uint8 and the mask (H, W) bool.
        """
        height, width = image.shape[:2]
        mask = np.zeros((height, width), np.bool_)
        places = None if part is None else np.argwhere(part)
        if rng.random() >= self.share or (places is not None and len(places) == 0):
            return image, mask
        for _ in range(int(rng.integers(1, MOST_PATCHES + 1))):
            side = max(2, round(float(rng.uniform(*self.sides)) * min(height, width)))
            if places is None:
                top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            else:
                center = places[int(rng.integers(len(places)))]
                top, left = (
                    int(np.clip(c - side // 2, 0, s - side)) for c, s in zip(center, (height, width), strict=True)
                )
            mask[top : top + side, left : left + side] = True
        if self.noise == "gaussian":
            noise = np.clip(rng.normal(NOISE_MEAN, NOISE_DEVIATION, image.shape), 0, 255).astype(np.uint8)
        else:
            noise = rng.integers(0, 256, image.shape, np.uint8)
        return np.where(mask[..., None], noise, image), mask


def foreground(image: Uint8Array) -> BoolArray:
    """The part on a plain background: an intensity threshold, and morphology; the whole image where that finds none.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) bool.

    Source: the threshold is Otsu's (1979); background is what most of the image's edge is.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    _, bright = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    edge = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    part = 255 - bright if edge.mean() > 127 else bright
    kernel = np.ones((max(3, min(gray.shape) // 50),) * 2, np.uint8)
    part = cv2.morphologyEx(cv2.morphologyEx(part, cv2.MORPH_OPEN, kernel), cv2.MORPH_CLOSE, kernel)
    found = np.asarray(part > 0)
    return found if found.mean() >= LEAST_FOREGROUND else np.ones_like(found)


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
