"""Flat and spring washers."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one washer."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, outer = materials.pick(style, materials.METALS), style.uniform(0.65, 0.85)
    inner, split = outer * style.uniform(0.4, 0.62), style.random() < 0.4
    distance = shapes.ring(x, y, inner, outer)
    if split:
        distance = np.maximum(distance, -shapes.box(x - y * np.float32(0.3), y, 0.035, 1, cy=outer))
    cover = canvas.cover(distance)
    if style.random() < 0.5:
        materials.turned(canvas, cover, color, pitch=style.uniform(0.02, 0.05))
    else:
        materials.brushed(canvas, cover, color)
    canvas.relief(canvas.bevel(distance, 0.06) * np.float32(0.03))
