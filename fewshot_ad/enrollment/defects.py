"""Drawn defects: to compare settings on a support set that has no real ones, and for the demo."""

from __future__ import annotations

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array


def scratch(
    image: Uint8Array,
    rng: np.random.Generator,
    length: float,
    width: float,
    contrast: float,
    within: Uint8Array | None = None,
) -> Uint8Array:
    """A thin, slightly bent line.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: Decides place, direction and bend.
        length: As a share of the image's scale, the square root of its area.
        width: Likewise; never below one pixel.
        contrast: 0..1, how much of the way to the opposite of the surroundings' color it goes.
        within: (h, w) uint8 of the image at any size: its center lies where that is above 0; None for the middle.
    """
    height, across = image.shape[:2]
    scale = (height * across) ** 0.5
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    steps = np.linspace(-0.5, 0.5, 12)[:, None] * length * scale
    bend = np.cos(np.linspace(-np.pi / 2, np.pi / 2, 12))[:, None] * rng.uniform(-0.15, 0.15) * length * scale
    points = _center(image, rng, within) + steps * along + bend * np.array([-along[1], along[0]])
    mask = np.zeros(image.shape[:2], np.float32)
    cv2.polylines(mask, [np.rint(points).astype(np.int32)], False, 1.0, max(1, round(width * scale)), cv2.LINE_AA)
    return _paint(image, mask, contrast)


def blot(
    image: Uint8Array, rng: np.random.Generator, radius: float, contrast: float, within: Uint8Array | None = None
) -> Uint8Array:
    """A soft-edged ellipse. Arguments as for `scratch`; `radius` is a share of the image's scale."""
    scale = (image.shape[0] * image.shape[1]) ** 0.5
    mask = np.zeros(image.shape[:2], np.float32)
    axes = tuple(max(1, round(float(v))) for v in rng.uniform(0.5, 1.0, 2) * radius * scale)
    center = tuple(int(v) for v in _center(image, rng, within))
    cv2.ellipse(mask, center, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    return _paint(image, mask, contrast)


def displaced_patch(
    image: Uint8Array, rng: np.random.Generator, size: float, within: Uint8Array | None = None
) -> Uint8Array:
    """A rectangle of the image copied to where it does not belong.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: Decides places and shape.
        size: Side as a share of the image's scale.
        within: As for `scratch`; what is copied comes from there, too.

    Source: Li et al. 2021 (CutPaste).
    """
    height, across = image.shape[:2]
    scale = (height * across) ** 0.5
    h, w = (int(np.clip(round(float(v)), 2, min(height, across) // 2)) for v in rng.uniform(0.7, 1.4, 2) * size * scale)
    x, y = _center(image, rng, within)
    top, left = int(np.clip(y - h / 2, 0, height - h)), int(np.clip(x - w / 2, 0, across - w))
    if within is None:
        from_top, from_left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, across - w + 1))
    else:
        x, y = _center(image, rng, within)
        from_top, from_left = int(np.clip(y - h / 2, 0, height - h)), int(np.clip(x - w / 2, 0, across - w))
    changed = image.copy()
    changed[top : top + h, left : left + w] = image[from_top : from_top + h, from_left : from_left + w]
    return changed


def missing_piece(image: Uint8Array, rng: np.random.Generator, radius: float) -> Uint8Array:
    """A ragged pentagon of one flat color where texture should be; `radius` is a share of the image's scale."""
    scale = (image.shape[0] * image.shape[1]) ** 0.5
    angles = np.arange(5) * 2 * np.pi / 5
    corners = rng.uniform(0.6, 1.0, (5, 1)) * radius * scale * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    broken = image.copy()
    color = tuple(float(v) for v in image.mean(axis=(0, 1)))
    cv2.fillPoly(broken, [np.rint(_center(image, rng) + corners).astype(np.int32)], color, cv2.LINE_AA)
    return broken


def random_defect(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    """One small, rather faint defect: a scratch, a blot or a displaced patch."""
    size = float(rng.uniform(0.02, 0.05))
    contrast = float(rng.uniform(0.25, 0.6))
    kind = int(rng.integers(3))
    if kind == 0:
        return displaced_patch(image, rng, 2.2 * size)
    if kind == 1:
        return scratch(image, rng, 5 * size, 0.006, contrast)
    return blot(image, rng, size, contrast)


def _center(
    image: Uint8Array, rng: np.random.Generator, within: Uint8Array | None = None
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if within is not None:
        places = np.flatnonzero(within)
        y, x = divmod(int(places[int(rng.uniform() * len(places))]), within.shape[1])
        return np.array([(x + 0.5) / within.shape[1] * image.shape[1], (y + 0.5) / within.shape[0] * image.shape[0]])
    # Parts sit in the middle of their images; what is drawn on the border would often miss them.
    return np.array([rng.uniform(0.2, 0.8) * image.shape[1], rng.uniform(0.2, 0.8) * image.shape[0]])


def _paint(image: Uint8Array, mask: Float32Array, contrast: float) -> Uint8Array:
    """Blend the opposite of the surroundings' mean color into the image where the mask (H, W) 0..1 says."""
    scale = (image.shape[0] * image.shape[1]) ** 0.5
    sigma = max(0.3, scale / 400)
    x, y, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
    if width == 0:
        return image.copy()
    margin = 3 + int(4 * sigma)
    window = np.s_[max(0, y - margin) : y + height + margin, max(0, x - margin) : x + width + margin]
    part = image[window]
    weight = cv2.GaussianBlur(mask[window], (0, 0), sigma)
    mean = part[cv2.dilate(weight, np.ones((5, 5), np.uint8)) > 0.05].mean(axis=0)
    opposite = np.where(mean > 127, mean - 127, mean + 127)
    weight = weight[..., None] * contrast
    painted = image.copy()
    painted[window] = np.clip(np.rint(part * (1 - weight) + opposite * weight), 0, 255).astype(np.uint8)
    return painted
