"""The anomalies of CutPaste: a patch, or a thin scar, of an image appears once more at another place of it.

Source: Li, Sohn, Yoon & Pfister 2021 (CutPaste, Sec. 2.2 and 2.3: what is cut, and how it is changed and pasted). Sizes
in pixels are those of an input of 256 x 256 and scale with the input.
"""

from __future__ import annotations

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Uint8Array
from fewshot_ad.zoo.components.image_jitter import recolored

AREA = (0.02, 0.15)  # Of a patch, as a share of the image's.
ASPECT_RATIOS = ((0.3, 1.0), (1.0, 3.3))
SCAR_WIDTH, SCAR_HEIGHT = (2.0, 16.0), (10.0, 25.0)
SCAR_DEGREES = 45.0
SIDE = 256


def cut_paste(image: Uint8Array, rng: np.random.Generator, color_jitter: float) -> Uint8Array:
    """Paste a rectangle of an image elsewhere into it.

    Args:
        image: (S, S, 3) uint8 RGB.
        rng: Source of everything random.
        color_jitter: Strength of the change of the rectangle's colors, see `image_jitter.recolored`.
    """
    side = image.shape[0]
    area = rng.uniform(*AREA)
    aspect_ratio = rng.uniform(*ASPECT_RATIOS[int(rng.integers(2))])
    height, width = (max(1, round(side * float(np.sqrt(area * share)))) for share in (1 / aspect_ratio, aspect_ratio))
    patch = recolored(_cut(image, height, width, rng), rng, color_jitter)
    return _pasted(image, patch, np.ones((height, width), bool), rng)


def cut_paste_scar(image: Uint8Array, rng: np.random.Generator, color_jitter: float) -> Uint8Array:
    """Paste a thin, turned rectangle of an image elsewhere into it; arguments as for `cut_paste`."""
    scale = image.shape[0] / SIDE
    height, width = (max(1, round(scale * float(rng.uniform(*size)))) for size in (SCAR_HEIGHT, SCAR_WIDTH))
    patch = recolored(_cut(image, height, width, rng), rng, color_jitter)
    degrees = float(rng.uniform(-SCAR_DEGREES, SCAR_DEGREES))
    cosine, sine = np.cos(np.radians(degrees)), abs(np.sin(np.radians(degrees)))
    box = (int(np.ceil(width * cosine + height * sine)), int(np.ceil(width * sine + height * cosine)))
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    matrix[:, 2] += (box[0] - width) / 2, (box[1] - height) / 2
    turned = cv2.warpAffine(patch, matrix, box, borderMode=cv2.BORDER_REPLICATE)
    shown = cv2.warpAffine(np.ones((height, width), np.uint8), matrix, box, flags=cv2.INTER_NEAREST).astype(bool)
    return _pasted(image, turned, shown, rng)


def _cut(image: Uint8Array, height: int, width: int, rng: np.random.Generator) -> Uint8Array:
    top, left = _place(image, height, width, rng)
    return image[top : top + height, left : left + width]


def _pasted(image: Uint8Array, patch: Uint8Array, shown: BoolArray, rng: np.random.Generator) -> Uint8Array:
    """A copy of an image, with the pixels of a patch (h, w, 3) that a mask (h, w) shows at a random place of it."""
    height, width = shown.shape
    top, left = _place(image, height, width, rng)
    image = image.copy()
    image[top : top + height, left : left + width][shown] = patch[shown]
    return image


def _place(image: Uint8Array, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a random rectangle inside an image."""
    return int(rng.integers(image.shape[0] - height + 1)), int(rng.integers(image.shape[1] - width + 1))
