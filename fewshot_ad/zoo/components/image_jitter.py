"""Random views of a good image for training: moved by a few pixels or degrees, and with slightly other colors."""

from __future__ import annotations

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array

HUES = 180  # OpenCV counts hue from 0 to 179.


def moved(image: Uint8Array, rng: np.random.Generator, shift: float, degrees: float = 0.0) -> Uint8Array:
    """Turn an image around its center and shift it; what comes in from outside is mirrored.

    Args:
        image: (H, W, 3) uint8.
        rng: Source of everything random.
        shift: Largest shift along either axis, as a share of the height or width.
        degrees: Largest turn in either direction.
    """
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), float(rng.uniform(-degrees, degrees)), 1.0)
    matrix[:, 2] += rng.uniform(-shift, shift, 2) * (width, height)
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)


def recolored(image: Uint8Array, rng: np.random.Generator, strength: float) -> Uint8Array:
    """Change brightness, contrast, saturation and hue at random.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: Source of everything random.
        strength: The first three are multiplied by factors within 1 - strength to 1 + strength, and hue is turned by at
            most that share of a full turn.
    """
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    pixels = image.astype(np.float32) * np.float32(brightness)
    gray = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    pixels = gray.mean() + np.float32(contrast) * (pixels - gray.mean())
    gray = (gray.mean() + np.float32(contrast) * (gray - gray.mean()))[..., None]
    pixels = gray + np.float32(saturation) * (pixels - gray)
    hsv = cv2.cvtColor(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), cv2.COLOR_RGB2HSV)
    turn = round(HUES * float(rng.uniform(-strength, strength)))
    hsv[..., 0] = ((hsv[..., 0].astype(int) + turn) % HUES).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
