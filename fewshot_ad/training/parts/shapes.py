"""Signed distances of simple outlines (negative inside), and drawings of text.

Source of the distance functions: elementary geometry.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.training.parts.canvas import Field

LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"


def disc(x: Field, y: Field, radius: float, cx: float = 0.0, cy: float = 0.0) -> Field:
    """A circle."""
    return np.hypot(x - np.float32(cx), y - np.float32(cy)) - np.float32(radius)


def ring(x: Field, y: Field, inner: float, outer: float) -> Field:
    """The area between two circles around the origin."""
    r = np.sqrt(x * x + y * y)
    return np.abs(r - np.float32((inner + outer) / 2)) - np.float32((outer - inner) / 2)


def box(
    x: Field, y: Field, half_width: float, half_height: float, corner: float = 0.0, cx: float = 0.0, cy: float = 0.0
) -> Field:
    """A rectangle with round corners."""
    dx = np.abs(x - np.float32(cx)) - np.float32(half_width - corner)
    dy = np.abs(y - np.float32(cy)) - np.float32(half_height - corner)
    outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    return outside + np.minimum(np.maximum(dx, dy), 0) - np.float32(corner)


def polygon(x: Field, y: Field, corners: int, inradius: float) -> Field:
    """A regular polygon."""
    sector = 2 * np.pi / corners
    turn = np.arctan2(y, x)
    turn = turn - np.float32(sector) * np.round(turn / np.float32(sector))
    return np.sqrt(x * x + y * y) * np.cos(turn) - np.float32(inradius)


def segment(x: Field, y: Field, start: tuple[float, float], end: tuple[float, float], half_width: float) -> Field:
    """A line with round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    px, py = x - np.float32(start[0]), y - np.float32(start[1])
    along = np.clip((px * np.float32(dx) + py * np.float32(dy)) / np.float32(max(dx * dx + dy * dy, 1e-9)), 0, 1)
    return np.hypot(px - along * np.float32(dx), py - along * np.float32(dy)) - np.float32(half_width)


def around(turn: Field, count: int) -> Field:
    """Angle to the nearest of `count` equally spaced spokes."""
    sector = np.float32(2 * np.pi / count)
    return turn - sector * np.round(turn / sector)


def cells(x: Field, pitch: float) -> tuple[Field, Field]:
    """Index of the cell of a periodic grid, and the offset from the center of the cell."""
    index = np.round(x / np.float32(pitch))
    return index, x - index * np.float32(pitch)


def text(characters: str, height: int = 48, thickness: int = 4) -> npt.NDArray[np.uint8]:
    """A drawing of characters, 255 = ink."""
    scale = height / 30
    (width, tall), base = cv2.getTextSize(characters, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    drawing = np.zeros((tall + base + 8, width + 8), np.uint8)
    cv2.putText(drawing, characters, (4, tall + 4), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    return drawing


def code(rng: np.random.Generator, length: int) -> str:
    """Random letters and digits."""
    return "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=length))
