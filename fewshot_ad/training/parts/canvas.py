"""The canvas that categories draw on: a height field with color and gloss, in the coordinates of the part.

The pose is applied to the coordinates, not to the pixels: shapes are signed distances, evaluated at the coordinates of
the pose, so a rotated part is as sharp as an upright one and nothing is resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Field: TypeAlias = npt.NDArray[np.float32]
Color: TypeAlias = Sequence[float] | npt.NDArray[np.floating[Any]]
NOISE_SIDE = 256


class Canvas:
    """A blank scene.

    Args:
        size: Side in pixels.
        angle: Rotation of the part in radians.
        shift: Place of the part's center, in half images (-1..1).
        scale: Size of the part against the image; 1 lets coordinates -1..1 fill it.
        tilt: Foreshortening along x and y, about -0.1..0.1.
        style: Random numbers that all parts of a product share; draws must not depend on `rng`.
        rng: Random numbers of this part alone.

    Attributes:
        x, y: (size, size) float32 part coordinates; the part fills about -1..1.
        height: Relief in part coordinates, toward the camera.
        albedo: (size, size, 3) reflectance, 0..1 RGB.
        gloss: Strength of the mirror reflection, 0..1.
        mask: Coverage by the part, 0..1.
    """

    def __init__(
        self,
        size: int,
        angle: float,
        shift: tuple[float, float],
        scale: float,
        tilt: tuple[float, float],
        style: np.random.Generator,
        rng: np.random.Generator,
    ) -> None:
        self.size, self.style, self.rng = size, style, rng
        line = ((np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1).astype(np.float32)
        u, v = np.meshgrid(line - np.float32(shift[0]), line - np.float32(shift[1]))
        # A slight perspective: distant areas look smaller.
        depth = 1 + np.float32(tilt[0]) * u + np.float32(tilt[1]) * v
        c, s = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
        self.x: Field = (c * u + s * v) * depth
        self.y: Field = (c * v - s * u) * depth
        self.pixel = 2 / (size * scale)
        self.height: Field = np.zeros((size, size), np.float32)
        self.albedo: Field = np.zeros((size, size, 3), np.float32)
        self.gloss: Field = np.zeros((size, size), np.float32)
        self.mask: Field = np.zeros((size, size), np.float32)

    @cached_property
    def radius(self) -> Field:
        """Distance from the part's center."""
        return np.sqrt(self.x**2 + self.y**2)

    @cached_property
    def turn(self) -> Field:
        """Angle around the part's center, -pi..pi."""
        return np.arctan2(self.y, self.x)

    def cover(self, distance: Field, soft: float = 1.0) -> Field:
        """Coverage 0..1 of a signed distance (negative inside), anti-aliased over `soft` pixels."""
        return np.clip(0.5 - distance / np.float32(self.pixel * soft), 0, 1)

    def bevel(self, distance: Field, width: float) -> Field:
        """0 outside, rising smoothly to 1 at `width` inside: the profile of a rounded edge."""
        t = np.clip(-distance / np.float32(width), 0, 1)
        return t * (2 - t)

    def paint(self, coverage: Field, color: Color, gloss: float | Field = 0.1) -> None:
        """Paint a color over an area (`coverage`, 0..1), and add the area to the mask."""
        shade = np.asarray(color, np.float32)
        c = coverage[..., None]
        self.albedo = self.albedo * (1 - c) + shade * c
        self.gloss = self.gloss * (1 - coverage) + np.float32(1) * gloss * coverage
        self.mask = np.maximum(self.mask, coverage)

    def relief(self, amount: Field) -> None:
        """Add to the height."""
        self.height = self.height + amount

    def tint(self, factor: Field) -> None:
        """Multiply the color."""
        self.albedo = self.albedo * (factor[..., None] if factor.ndim == 2 else factor)

    def noise(
        self,
        cell: float,
        *,
        stretch: tuple[float, float] = (1.0, 1.0),
        octaves: int = 2,
        fixed: bool = False,
        at: tuple[Field, Field] | None = None,
    ) -> Field:
        """Smooth noise of zero mean and about unit deviation, anchored to the part.

        Args:
            cell: Size of its grains in part coordinates.
            stretch: Factors of the grain along x and y: (20, 1) brushes along x.
            octaves: Each adds detail of half the size and half the strength.
            fixed: The same on every part of the product (a pattern) instead of new each time (a grain).
            at: Coordinates to sample at, instead of the part's.
        """
        source = self.style if fixed else self.rng
        x, y = at or (self.x, self.y)
        total: Field = np.zeros_like(x)
        weight, norm = 1.0, 0.0
        for octave in range(octaves):
            grains = source.standard_normal((NOISE_SIDE, NOISE_SIDE), np.float32)
            start = source.uniform(0, NOISE_SIDE, 2)
            fine = 2**octave / cell
            u = x * np.float32(fine / stretch[0]) + np.float32(start[0])
            v = y * np.float32(fine / stretch[1]) + np.float32(start[1])
            total += np.float32(weight) * cv2.remap(grains, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
            norm += weight**2
            weight /= 2
        return total * np.float32(1.5 / np.sqrt(norm))

    def print(self, drawing: npt.NDArray[np.uint8], box: tuple[float, float, float, float]) -> Field:
        """Coverage by a gray drawing (255 = ink) placed into a box (left, top, right, bottom) of the part."""
        rows, columns = drawing.shape
        left, top, right, bottom = box
        u = (self.x - np.float32(left)) * np.float32(columns / (right - left)) - np.float32(0.5)
        v = (self.y - np.float32(top)) * np.float32(rows / (bottom - top)) - np.float32(0.5)
        ink = drawing.astype(np.float32) / 255
        step = self.pixel * columns / (right - left)
        if step > 1.2:  # the drawing is finer than the pixels: average first
            ink = cv2.GaussianBlur(ink, (0, 0), 0.4 * step)
        return cv2.remap(ink, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
