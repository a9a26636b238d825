"""Images that have, beside the color of each pixel, the position of what it shows: an organized point cloud.

Six numbers per pixel, as a scanner gives them: R, G, B in 0..255 and x, y, z in the scanner's unit. All three are 0
where it saw nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.tensors import to_batch

CHANNELS = 6


def colored_points(image: Uint8Array, points: Float32Array) -> Float32Array:
    """An image for a method whose card says `needs_points`.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (H, W, 3) float32 positions, all 0 where there is none.

    Returns:
        (H, W, 6) float32.
    """
    return np.concatenate([image.astype(np.float32), points], axis=2)


def points_batch(name: str, images: Sequence[Any], side: int, least: int = 1) -> torch.Tensor:
    """Colored points, read item by item, at one size.

    Args:
        name: Name of the baseline, for the message.
        images: (H, W, 6) float32 each, of any sizes.
        side: Side of the result, in pixels.
        least: Number of positions that each must have.

    Returns:
        (N, 6, side, side) float32: colors in 0..1, and positions, each one of the scanner's own: between an edge and
        what lies behind it there is nothing.

    Raises:
        ZooError: There are no images, one has no positions, or fewer than `least` at this size.
    """
    if len(images) == 0:
        raise ZooError("expected at least one image of a good part, got none.")
    batch = []
    for i in range(len(images)):
        image = np.asarray(images[i])
        if image.ndim != 3 or image.shape[2] != CHANNELS:
            raise ZooError(
                f"{name}: expected color and position of each pixel, (H, W, {CHANNELS}), got {image.shape}. Join them "
                "by `colored_points`, or run it on a dataset of the benchmark that has positions, such as mvtec_3d."
            )
        color = to_batch([np.ascontiguousarray(image[..., :3], np.uint8)], side)[0]
        points = cv2.resize(
            np.ascontiguousarray(image[..., 3:], np.float32), (side, side), None, 0, 0, cv2.INTER_NEAREST
        )
        count = int(points.any(2).sum())
        if count < least:
            raise ZooError(f"{name}: expected at least {least} positions in an image of {side} x {side}, got {count}.")
        batch.append(torch.cat([color, torch.as_tensor(points).permute(2, 0, 1)]))
    return torch.stack(batch)
