"""Blister packs."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one pack."""
    style, x, y = canvas.style, canvas.x, canvas.y
    outline = shapes.box(x, y, 0.95, 0.75, 0.08)
    foil = canvas.cover(outline)
    materials.brushed(canvas, foil, np.array((0.7, 0.7, 0.72)), gloss=0.7)
    canvas.relief(foil * np.sin((x + y) * np.float32(120)) * np.sin((x - y) * np.float32(120)) * np.float32(0.002))
    columns, rows = int(style.integers(3, 6)), int(style.integers(2, 4))
    wide, tall = 1.75 / columns, 1.35 / rows
    _, dx = shapes.cells(x - np.float32((columns % 2 == 0) * wide / 2), wide)
    _, dy = shapes.cells(y - np.float32((rows % 2 == 0) * tall / 2), tall)
    inside = shapes.box(x, y, wide * columns / 2, tall * rows / 2)
    size = 0.36 * min(wide, tall)
    pocket = np.maximum(np.hypot(dx, dy) - np.float32(size), inside)
    canvas.paint(
        canvas.cover(np.maximum(np.hypot(dx, dy) - np.float32(size * 0.8), inside)),
        materials.pick(style, materials.PLASTICS),
        0.5,
    )
    canvas.relief(canvas.bevel(pocket, size) * np.float32(0.12))
