"""Synthetic anomalies for DiffusionAD: a Perlin noise mask, filled with another texture or the shuffled image.

Sources: Zhang et al. 2025 (DiffusionAD; ranges as in the authors' public code); Zavrtanik et al. 2021 (DRAEM, Sec. 3.3:
masks from Perlin noise, blending by a random opacity); Perlin 1985, 2002 (gradient noise and its fade polynomial).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float32Array, Uint8Array

CELLS = 6  # Cells along a side: a power of two below 2 ** CELLS.
THRESHOLD = 0.5
TRIES = 50
OPACITY = (0.2, 0.8)
GRID = 8
CHANGES = 3


def perlin(side: int, cells: tuple[int, int], rng: np.random.Generator) -> Float32Array:
    """Gradient noise.

    Args:
        side: Side of the noise in pixels.
        cells: Cells of the lattice down and across.
        rng: Source of the directions of the gradients.

    Returns:
        (side, side) float32 in about -1..1.
    """
    angles = rng.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    slopes = np.stack([np.sin(angles), np.cos(angles)], -1)
    y, x = ((np.arange(side) + 0.5) / side * n for n in cells)
    row, column = y.astype(int)[:, None], x.astype(int)[None]
    within_y, within_x = y[:, None] - row, x[None] - column

    def corner(down: int, right: int) -> np.ndarray:
        slope = slopes[row + down, column + right]
        return slope[..., 0] * (within_y - down) + slope[..., 1] * (within_x - right)

    fade_y, fade_x = (t**3 * (t * (6 * t - 15) + 10) for t in (within_y, within_x))
    upper = corner(0, 0) * (1 - fade_x) + corner(0, 1) * fade_x
    lower = corner(1, 0) * (1 - fade_x) + corner(1, 1) * fade_x
    return (np.sqrt(2) * (upper * (1 - fade_y) + lower * fade_y)).astype(np.float32)


def perlin_mask(side: int, rng: np.random.Generator) -> BoolArray:
    """A mask (side, side) of random fineness and direction; empty only if 50 tries in a row were empty."""
    mask = np.zeros((side, side), bool)
    for _ in range(TRIES):
        down, across = (2 ** int(rng.integers(CELLS)) for _ in range(2))
        mask = _turned(perlin(side, (down, across), rng), float(rng.uniform(-90, 90))) > THRESHOLD
        if mask.any():
            break
    return mask


def synthetic_anomaly(
    image: Uint8Array, textures: Sequence[Uint8Array], rng: np.random.Generator
) -> tuple[Uint8Array, BoolArray]:
    """Add an anomaly to an image.

    Args:
        image: (S, S, 3) uint8 RGB of a good part.
        textures: (S, S, 3) uint8 RGB each. Half of the anomalies show a texture, the others the image itself, changed
            and cut into 8 x 8 tiles that change places.
        rng: Source of everything random.

    Returns:
        The image with the anomaly, and its mask (S, S) bool.
    """
    side = image.shape[0]
    mask = perlin_mask(side, rng)
    if rng.uniform() < 0.5:
        filling = changed(textures[int(rng.integers(len(textures)))], rng)
    else:
        filling = _shuffled(changed(image, rng), rng)
    share = rng.uniform(*OPACITY)
    blended = np.rint(share * image + (1 - share) * filling.astype(np.float32)).astype(np.uint8)
    return np.where(mask[..., None], blended, image), mask


def changed(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    """An image (S, S, 3) uint8 after three different random changes of its colors, sharpness or direction."""
    for i in rng.choice(len(_CHANGES), CHANGES, replace=False):
        image = _CHANGES[i](image, rng)
    return image


def _shuffled(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    """Rows and columns of tiles change places; a rest that is no whole tile stays at the end."""
    tile = image.shape[0] // GRID
    rows, columns = ((rng.permutation(GRID)[:, None] * tile + np.arange(tile)).ravel() for _ in range(2))
    rest = np.arange(GRID * tile, image.shape[0])
    return image[np.r_[rows, rest]][:, np.r_[columns, rest]]


def _turned(image: np.ndarray, degrees: float) -> np.ndarray:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(image, matrix, (width, height))


def _clipped(image: np.ndarray) -> Uint8Array:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _gamma(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    return _clipped(255 * (image / 255.0) ** rng.uniform(0.5, 2, 3))


def _brightness(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    return _clipped(image * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30))


def _sharpness(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32)
    return _clipped(smooth + rng.uniform(0, 3) * (image - smooth))


def _hue_and_saturation(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(int)
    # OpenCV counts hue to 180.
    hsv[..., 0] = (hsv[..., 0] + int(rng.integers(-35, 36))) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] + int(rng.integers(-50, 51)), 0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


def _solarized(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    return np.where(image < rng.integers(32, 129), image, 255 - image)


def _posterized(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    kept_bits = np.uint8(256 - 2 ** rng.integers(1, 8))
    return image & kept_bits


def _inverted(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    return 255 - image


def _stretched(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    low, high = image.min((0, 1)).astype(float), image.max((0, 1)).astype(float)
    return _clipped((image - low) * 255 / np.maximum(high - low, 1))


def _equalized(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    return np.stack([cv2.equalizeHist(np.ascontiguousarray(image[..., i])) for i in range(3)], -1)


def _rotated(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    return _turned(image, float(rng.uniform(-45, 45)))


_CHANGES: tuple[Callable[[Uint8Array, np.random.Generator], Uint8Array], ...] = (
    _gamma,
    _brightness,
    _sharpness,
    _hue_and_saturation,
    _solarized,
    _posterized,
    _inverted,
    _stretched,
    _equalized,
    _rotated,
)
