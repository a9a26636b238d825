"""Perforated and expanded sheet metal."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one sheet."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, pitch = materials.pick(style, materials.METALS), style.uniform(0.14, 0.3)
    materials.brushed(canvas, np.ones_like(x), color, gloss=style.uniform(0.2, 0.6))
    row, dy = shapes.cells(y, pitch * 0.866)
    _, dx = shapes.cells(x + np.float32(pitch / 2) * np.mod(row, 2), pitch)
    size = pitch * style.uniform(0.25, 0.38)
    hole = np.hypot(dx, dy) - np.float32(size) if style.random() < 0.7 else shapes.box(dx, dy, size, size * 0.6, 0.02)
    canvas.paint(canvas.cover(hole), (0.04, 0.04, 0.04), 0.02)
    canvas.relief(canvas.bevel(-hole, 0.02) * np.float32(0.02))
