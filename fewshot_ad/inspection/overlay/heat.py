"""The colors of a map: blue and green far below its threshold, amber close to it, red from it on and only there."""

from __future__ import annotations

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.images import row_blocks

RED, AMBER = (235, 30, 30), (255, 170, 0)
# The largest value that is not red yet.
BELOW_RED = 254.5 / 255
_STOPS = (0, 90, 150, 205, 254, 255)
_STOP_COLORS = ((40, 60, 200), (0, 150, 190), (70, 180, 80), (240, 220, 50), AMBER, RED)


def _table() -> Uint8Array:
    channels = [np.interp(np.arange(256), _STOPS, channel) for channel in zip(*_STOP_COLORS, strict=True)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)[:, None]


COLORS = _table()


def colors_of(heat: Float32Array) -> Uint8Array:
    """The color (H, W, 3) uint8 RGB of each value (H, W) float32 in 0..1; only 1 is red."""
    colored: Uint8Array = cv2.applyColorMap((heat * 255).astype(np.uint8), COLORS)
    return colored


def blend_heat(image: Uint8Array, heat: Float32Array, weight: Float32Array) -> Uint8Array:
    """An image with a score map over it, from blue to red.

    Args:
        image: (H, W, 3) uint8 RGB.
        heat: (H, W) float32 in 0..1, 1 is red.
        weight: (H, W) float32 in 0..1, how much of the color is laid over the image.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    blended = np.empty_like(image)
    for rows in row_blocks(*image.shape[:2]):
        share = weight[rows][..., None]
        blended[rows] = np.rint(image[rows] * (1 - share) + colors_of(heat[rows]) * share)
    return blended
