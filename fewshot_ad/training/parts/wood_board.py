"""Planed boards."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one board."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color = materials.pick(style, materials.TREES)
    materials.wood(canvas, np.ones_like(x), color)
    planks = int(style.integers(1, 5))
    if planks > 1:
        _, gap = shapes.cells(y - np.float32((planks % 2) / planks), 2 / planks)
        seam = canvas.cover(np.abs(gap) - np.float32(0.012))
        canvas.tint(1 - np.float32(0.7) * seam)
        canvas.relief(-seam * np.float32(0.03))
