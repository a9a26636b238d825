"""Random crops and photometric jitter for training; the seed decides, so the same step always gets the same pixels."""

from __future__ import annotations

import cv2
import kornia.augmentation as augment
import numpy as np
import torch
from torch import nn

from fewshot_ad.arrays import Uint8Array


def random_crop(image: Uint8Array, size: int, scales: tuple[float, float], rng: np.random.Generator) -> Uint8Array:
    """A square crop at a random scale and position, randomly flipped and rotated by a multiple of 90 degrees.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the crop in pixels.
        scales: Smallest and largest magnification, drawn log-uniformly. An image that is too small for the crop is
            magnified more.
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
    """Random brightness, contrast, color, grayscale, gamma, blur and noise (kornia), drawn separately for each image.

    Args:
        strength: 0 = no change; 1 = about what changes on an inspection line from hour to hour.
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
        """Change a batch of images.

        Args:
            images: (N, 3, H, W) float RGB in 0..1.
            seed: The same seed gives the same changes; torch's global random state is not touched.

        Returns:
            The same shape and range.
        """
        devices = [images.device] if images.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            return self.steps(images).clamp(0, 1)
