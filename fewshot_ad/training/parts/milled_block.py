"""Milled blocks with pockets, slots and threaded holes."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one block."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color = materials.pick(style, materials.METALS)
    wide, tall = style.uniform(0.7, 0.92), style.uniform(0.45, 0.85)
    outline = shapes.box(x, y, wide, tall, 0.04)
    materials.brushed(canvas, canvas.cover(outline), color, across=bool(style.integers(2)))
    canvas.relief(canvas.bevel(outline, 0.04) * np.float32(0.04))
    for _ in range(int(style.integers(1, 4))):
        cx, cy = style.uniform(-0.5, 0.5) * wide, style.uniform(-0.5, 0.5) * tall
        pocket = shapes.box(x, y, style.uniform(0.1, 0.3), style.uniform(0.08, 0.25), 0.06, cx, cy)
        inside = canvas.cover(pocket)
        canvas.tint(1 - np.float32(0.2) * inside)
        # Traces of the end mill.
        marks = np.sin(np.hypot(x - np.float32(cx + 0.4), y) * np.float32(220))
        canvas.relief(-canvas.bevel(pocket, 0.03) * np.float32(0.05) + inside * marks * np.float32(0.0008))
    for sx in (-1, 1):
        for sy in (-1, 1):
            hole = shapes.disc(x, y, 0.06, sx * (wide - 0.14), sy * (tall - 0.14))
            canvas.paint(canvas.cover(hole), (0.05, 0.05, 0.05), 0.1)
            canvas.relief(-canvas.bevel(hole, 0.03) * np.float32(0.03))
