"""Collages: generated images of many overlapping pieces, for distillation without real images.

The image of a generated part is mostly background and has few kinds of edges. A collage has the statistics of a natural
image instead: pieces of all sizes that cover each other, each with a texture of its own, cut from generated parts or
drawn as noise.

Sources: Lee, Mumford & Huang 2001 (dead leaves model: an inverse cube law of sizes gives the statistics of natural
images); Baradad et al. 2021 (features learned from such images transfer to real ones).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.training.parts.canvas import Field

# Smallest and largest radius of a piece, as a share of the collage's side, and the range of the number of pieces.
SMALLEST, LARGEST = 0.03, 0.45
PIECES = (40, 180)
# Side of a noise tile in pixels.
TEXTURE_SIDE = 128
# Standard deviation of the blur of shadows in pixels.
SHADOW = 2.5


def collage(textures: Sequence[Uint8Array], seed: int, size: int = 256) -> Uint8Array:
    """Generate one collage.

    Args:
        textures: (H, W, 3) uint8 images to cut pieces from, such as generated parts.
        seed: The same seed and textures give the same collage.
        size: Side in pixels.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    rng = np.random.default_rng([seed, 11])
    image = _texture(textures, size, size, rng)
    count = int(rng.integers(*PIECES))
    # Inverse cube law between the smallest and the largest radius; large pieces come first, so that small ones stay
    # visible.
    quantiles = rng.uniform(size=count)
    radii = (SMALLEST**-2 + quantiles * (LARGEST**-2 - SMALLEST**-2)) ** -0.5 * size
    order = np.argsort(-radii + rng.normal(0, 0.05 * size, count))
    for radius in radii[order]:
        _paste_piece(image, _outline(radius, rng), rng.uniform(0, size, 2), textures, rng)
    if rng.uniform() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.0)))
    return np.clip(image * 255, 0, 255).astype(np.uint8)


def _outline(radius: float, rng: np.random.Generator) -> np.ndarray:
    """A closed outline (n, 2) around the origin, in pixels."""
    kind = int(rng.integers(4))
    turn = rng.uniform(0, 2 * np.pi)
    if kind == 0:  # ellipse
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        points = np.stack([np.cos(angle), rng.uniform(0.3, 1) * np.sin(angle)], 1)
    elif kind == 1:  # rectangle, often a bar
        wide = float(np.exp(rng.uniform(np.log(0.08), 0)))
        points = np.array([[-1, -wide], [1, -wide], [1, wide], [-1, wide]])
    elif kind == 2:  # polygon
        angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        points = np.stack([np.cos(angle), np.sin(angle)], 1)
    else:  # smooth blob
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        waves = sum(rng.normal(0, 0.35 / n) * np.cos(n * angle + rng.uniform(0, 6.28)) for n in range(2, 6))
        points = np.stack([np.cos(angle), np.sin(angle)], 1) * np.clip(1 + waves, 0.15, 2)[:, None]
    c, s = np.cos(turn), np.sin(turn)
    return points @ np.array([[c, s], [-s, c]]) * radius


def _paste_piece(
    image: Field, outline: np.ndarray, center: np.ndarray, textures: Sequence[Uint8Array], rng: np.random.Generator
) -> None:
    """Draw a piece with an outline (n, 2) around its center (x, y), in pixels, over the image, in place."""
    side = image.shape[0]
    points = outline + center
    # With room for the shadow, which extends beyond the outline.
    left, top = np.floor(points.min(0) - 3 * SHADOW).astype(int).clip(0, side)
    right, bottom = np.ceil(points.max(0) + 3 * SHADOW).astype(int).clip(0, side) + 1
    right, bottom = min(right, side), min(bottom, side)
    if right - left < 2 or bottom - top < 2:
        return
    cover = np.zeros((bottom - top, right - left), np.uint8)
    # Coordinates in 1/16 pixel: the edge is anti-aliased.
    cv2.fillPoly(cover, [np.rint((points - (left, top)) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    alpha = cover[..., None].astype(np.float32) / 255
    region = image[top:bottom, left:right]
    if rng.uniform() < 0.4:  # a shadow on the pieces below
        shadow = cv2.GaussianBlur(alpha, (0, 0), SHADOW)[..., None]
        region *= 1 - np.float32(rng.uniform(0.1, 0.6)) * shadow
    region[:] = region * (1 - alpha) + alpha * _texture(textures, bottom - top, right - left, rng)


def _texture(textures: Sequence[Uint8Array], height: int, width: int, rng: np.random.Generator) -> Field:
    """A random texture (height, width, 3) in 0..1 under light that falls off to one side."""
    kind = rng.uniform()
    if kind < 0.45:
        texture = _crop_texture(textures[int(rng.integers(len(textures)))], height, width, rng)
    else:
        base = rng.uniform(0.05, 0.95, 3) * (1 if rng.uniform() < 0.6 else rng.uniform(0.2, 1))
        if rng.uniform() < 0.4:
            base = np.full(3, base.mean())
        if kind < 0.6:
            pattern = np.zeros((height, width), np.float32)
        elif kind < 0.85:
            pattern = _noise(height, width, rng)
        else:
            pattern = _stripes(height, width, rng)
        contrast = np.float32(np.exp(rng.uniform(np.log(0.02), np.log(0.5))))
        texture = base.astype(np.float32) * (1 + contrast * pattern[..., None])
    slope = rng.normal(0, 0.25, 2)
    y, x = np.linspace(-0.5, 0.5, height)[:, None], np.linspace(-0.5, 0.5, width)[None]
    light = np.float32(rng.uniform(0.6, 1.2)) * (1 + slope[0] * y + slope[1] * x)
    return np.clip(texture * light[..., None], 0, 1).astype(np.float32)


def _crop_texture(texture: Uint8Array, height: int, width: int, rng: np.random.Generator) -> Field:
    """A randomly rotated and scaled crop (height, width, 3) in 0..1, often with its color channels permuted."""
    scale, turn = float(np.exp(rng.uniform(np.log(0.5), np.log(2)))), float(rng.uniform(0, 360))
    center = rng.uniform(0.2, 0.8, 2) * (texture.shape[1], texture.shape[0])
    matrix = cv2.getRotationMatrix2D((float(center[0]), float(center[1])), turn, scale)
    matrix[:, 2] += (width / 2 - center[0], height / 2 - center[1])
    crop = cv2.warpAffine(texture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    channels = rng.permutation(3) if rng.uniform() < 0.3 else np.arange(3)
    return crop[..., channels].astype(np.float32) / 255


def _noise(height: int, width: int, rng: np.random.Generator) -> Field:
    """Noise (height, width) with a power law spectrum and unit variance, stretched along a random direction."""
    line = np.fft.fftfreq(TEXTURE_SIDE)
    turn, stretch = rng.uniform(0, np.pi), float(np.exp(rng.uniform(0, np.log(8))))
    along = np.cos(turn) * line[None] + np.sin(turn) * line[:, None]
    across = np.cos(turn) * line[:, None] - np.sin(turn) * line[None]
    frequency = np.sqrt((along * stretch) ** 2 + (across / np.sqrt(stretch)) ** 2)
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(rng.standard_normal((TEXTURE_SIDE, TEXTURE_SIDE))) * frequency ** -rng.uniform(0.3, 2)
    spectrum[0, 0] = 0
    noise = np.fft.ifft2(spectrum).real
    noise = (noise / max(noise.std(), 1e-9)).astype(np.float32)
    repeat = (-(-height // TEXTURE_SIDE), -(-width // TEXTURE_SIDE))
    return np.ascontiguousarray(np.tile(noise, repeat)[:height, :width])


def _stripes(height: int, width: int, rng: np.random.Generator) -> Field:
    """A pattern (height, width) in -1..1: stripes, two crossed gratings multiplied, or their maximum."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    turn, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(3), np.log(24)))
    waves = [np.sin((np.cos(t) * x + np.sin(t) * y) * 2 * np.pi / period) for t in (turn, turn + np.pi / 2)]
    mix = int(rng.integers(3))
    pattern = waves[0] if mix == 0 else waves[0] * waves[1] if mix == 1 else np.maximum(waves[0], waves[1])
    return np.sign(pattern).astype(np.float32) if rng.uniform() < 0.4 else pattern.astype(np.float32)
