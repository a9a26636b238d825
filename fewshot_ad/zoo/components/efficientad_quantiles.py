"""Quantiles of EfficientAD's maps on good images that it did not train on: they bring two kinds of map to one scale.

Source: Batzner, Heckler & König 2024 (EfficientAD, WACV), section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch

from fewshot_ad.arrays import Uint8Array

LOWER_QUANTILE, UPPER_QUANTILE = 0.9, 0.995
# Fewer good images than this are too few to set some aside.
ENOUGH_TO_SPLIT = 10
VIEWS = 2


class Quantiles(NamedTuple):
    """Two quantiles of one kind of map on good images."""

    lower: float
    upper: float

    @classmethod
    def of(
        cls, maps: Sequence[torch.Tensor], lower: float = LOWER_QUANTILE, upper: float = UPPER_QUANTILE
    ) -> Quantiles:
        """Two quantiles over all positions of all maps; EfficientAD's are 90% and 99.5%."""
        values = np.concatenate([m.flatten().numpy() for m in maps])
        lower, upper = np.quantile(values, (lower, upper))
        return cls(float(lower), float(upper))

    def normalized(self, heat: torch.Tensor) -> torch.Tensor:
        """The lower quantile becomes 0 and the upper one 0.1."""
        return 0.1 * (heat - self.lower) / max(self.upper - self.lower, 1e-12)


def held_out(images: Uint8Array, rng: np.random.Generator) -> tuple[Uint8Array, Uint8Array]:
    """Split (n, H, W, 3) good images into those to train on and those that set the maps' quantiles.

    Of 10 or more, a tenth is set aside, as in the paper. Of fewer, all are for training, and the quantiles come from
    two views of each, shifted, turned and lit a little differently: a weaker substitute for new images.

    Returns:
        Images to train on, and images or views for the quantiles, (n, H, W, 3) uint8 each.
    """
    count = len(images)
    if count >= ENOUGH_TO_SPLIT:
        order = rng.permutation(count)
        return images[np.sort(order[count // 10 :])], images[np.sort(order[: count // 10])]
    side = images.shape[1]
    views = []
    for image in np.repeat(images, VIEWS, axis=0):
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.uniform(-2, 2)), 1.0)
        matrix[:, 2] += rng.uniform(-0.02, 0.02, 2) * side
        moved = cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101)
        views.append(np.clip(np.rint(moved * rng.uniform(0.95, 1.05)), 0, 255).astype(np.uint8))
    return images, np.stack(views)
