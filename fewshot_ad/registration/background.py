"""The plain background of an image: a smooth surface through the colors along its border."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float64Array, Uint8Array

# Width of the border, as a share of the shorter side.
BORDER = 0.03
# Pixels are unlike the background from so many robust deviations on, of at least so many gray levels.
UNLIKE, LEAST_DEVIATION = 5.0, 2.0
# A border is plain where no more than this share of it is unlike its own surface, and deviates by no more than this.
MAX_UNLIKE_BORDER, MAX_DEVIATION = 0.2, 20.0
# Pixels of the border that the surface is fitted to, at most.
_FITTED = 4096
# Pixels of the image per value of the surface: it is of the second order, and bends little within.
_STEP = 8


def border_of(image_hw: tuple[int, ...]) -> BoolArray:
    """Which pixels lie along the edge of an image, (H, W) bool."""
    margin = max(2, round(BORDER * min(image_hw[:2])))
    border = np.ones(image_hw[:2], bool)
    border[margin:-margin, margin:-margin] = False
    return border


def unlike_background(content: Uint8Array) -> BoolArray | None:
    """Which pixels are unlike the surface through the border's colors; None where the border is not plain.

    Light falls off across a table, so the surface is of the second order in x and y. It is fitted robustly (Huber's
    weights), so that parts may reach across the border.

    Args:
        content: (h, w, 3) uint8 RGB.

    Returns:
        (h, w) bool.
    """
    lab = cv2.cvtColor(content, cv2.COLOR_RGB2LAB)
    border = border_of(content.shape)
    rows, columns = np.nonzero(border)
    step = -(-len(rows) // _FITTED)
    rows, columns = rows[::step], columns[::step]
    height, width = border.shape
    colors = lab[rows, columns].astype(np.float64)
    terms = _terms(2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1)
    coefficients = _robust_fit(terms, colors)
    off = np.abs(colors - terms @ coefficients)
    deviation = 1.4826 * np.median(off, axis=0)
    limits = UNLIKE * np.maximum(deviation, LEAST_DEVIATION)
    if float((off > limits).any(axis=1).mean()) > MAX_UNLIKE_BORDER or float(deviation.max()) > MAX_DEVIATION:
        return None
    coarse = (-(-height // _STEP) + 1, -(-width // _STEP) + 1)
    surface = (_grid(coarse, (height, width)) @ coefficients).reshape(*coarse, 3).astype(np.float32)
    # Values lie at multiples of the step, pixel 0 at the first.
    at_pixels = np.array([[_STEP, 0, 0], [0, _STEP, 0]], np.float32)
    expected = cv2.warpAffine(surface, at_pixels, (width, height), borderMode=cv2.BORDER_REPLICATE)
    off_by = cv2.absdiff(lab, np.clip(np.rint(expected, out=expected), 0, 255, out=expected).astype(np.uint8))
    within = cv2.inRange(off_by, np.zeros(3), limits)
    return within == 0


def _terms(x: Float64Array, y: Float64Array) -> Float64Array:
    """Of points in -1..1 across and down, the terms of the second order, (n, 6)."""
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


@functools.lru_cache(maxsize=4)
def _grid(coarse_hw: tuple[int, int], image_hw: tuple[int, int]) -> Float64Array:
    y, x = np.mgrid[: coarse_hw[0], : coarse_hw[1]].reshape(2, -1) * float(_STEP)
    return _terms(2 * x / (image_hw[1] - 1) - 1, 2 * y / (image_hw[0] - 1) - 1)


def _robust_fit(terms: Float64Array, values: Float64Array) -> Float64Array:
    """Coefficients (k, c) of a least-squares fit of (n, c) in which what lies far off counts little."""
    weights = np.ones(len(values))
    coefficients: Float64Array = np.zeros((terms.shape[1], values.shape[1]))
    for _ in range(10):
        weighted = terms * weights[:, None]
        coefficients = np.linalg.solve(weighted.T @ terms + 1e-9 * np.eye(terms.shape[1]), weighted.T @ values)
        off = np.abs(values - terms @ coefficients)
        scale = np.maximum(1.4826 * np.median(off, axis=0), LEAST_DEVIATION / 2)
        weights = np.minimum(1, 1.345 / np.maximum((off / scale).max(axis=1), 1e-9))
    return coefficients
