"""Molded bricks with studs."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one brick."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color = materials.pick(style, materials.PLASTICS)
    columns, rows = int(style.integers(2, 6)), int(style.integers(1, 4))
    pitch = 1.7 / max(columns, rows)
    wide, tall = columns * pitch / 2, rows * pitch / 2
    outline = shapes.box(x, y, wide, tall, 0.03)
    materials.plastic(canvas, canvas.cover(outline), color, gloss=0.45)
    canvas.relief(canvas.bevel(outline, 0.04) * np.float32(0.05))
    _, dx = shapes.cells(x - np.float32((columns % 2 == 0) * pitch / 2), pitch)
    _, dy = shapes.cells(y - np.float32((rows % 2 == 0) * pitch / 2), pitch)
    stud = np.maximum(np.hypot(dx, dy) - np.float32(0.31 * pitch), outline)
    canvas.tint(1 + np.float32(0.06) * canvas.cover(stud))
    canvas.relief(canvas.bevel(stud, 0.05) * np.float32(0.06))
    canvas.relief(
        canvas.cover(np.maximum(np.abs(np.hypot(dx, dy) - np.float32(0.16 * pitch)) - np.float32(0.012), outline))
        * np.float32(0.01)
    )
