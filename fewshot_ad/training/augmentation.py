"""Random crops and random light for training, seeded per step: the same step always sees the same pixels."""

from __future__ import annotations

import cv2
import kornia.augmentation as augment
import numpy as np
import torch
from torch import nn

from fewshot_ad.arrays import Uint8Array


def random_crop(image: Uint8Array, size: int, scales: tuple[float, float], rng: np.random.Generator) -> Uint8Array:
    """A square crop at a random scale, flipped and turned by quarter turns at random.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the crop in pixels.
        scales: Smallest and largest magnification, drawn log-uniformly. An image too small for its draw is
            magnified until it fits.
        rng: Source of randomness.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = image.shape[:2]
    scale = float(np.exp(rng.uniform(np.log(scales[0]), np.log(scales[1]))))
    side = min(max(round(size / scale), 8), height, width)
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    crop = image[top : top + side, left : left + side]
    if side != size:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
    crop = np.rot90(crop, int(rng.integers(4)))
    if rng.integers(2):
        crop = crop[:, ::-1]
    return np.ascontiguousarray(crop)


class PhotometricJitter(nn.Module):
    """Random brightness, contrast, color, gray, gamma, blur and noise (kornia), each image its own.

    Args:
        strength: 1 for the changes a line sees from hour to hour; 0 for none.
    """

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.steps = augment.AugmentationSequential(
            augment.ColorJitter(0.3 * strength, 0.3 * strength, 0.3 * strength, 0.05 * strength, p=0.8),
            augment.RandomGrayscale(p=0.15 * min(strength, 1.0)),
            augment.RandomGamma((1 - 0.3 * min(strength, 1.0), 1 + 0.3 * strength), p=0.3),
            augment.RandomGaussianBlur((5, 5), (0.1, 0.1 + 1.2 * strength), p=0.2 * min(strength, 1.0)),
            augment.RandomGaussianNoise(std=0.02 * strength, p=0.3),
            same_on_batch=False,
        )

    def forward(self, images: torch.Tensor, seed: int) -> torch.Tensor:
        """(N, 3, H, W) float in 0..1 -> the same shape and range.

        Args:
            images: The batch.
            seed: The same seed gives the same changes; the caller's random state is left alone.
        """
        devices = [images.device] if images.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            return self.steps(images).clamp(0, 1)
