"""Ceramic and stone tiles."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one tile."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color = materials.pick(style, (*materials.TREES, *materials.PLASTICS, *materials.STEELS))
    materials.stone(canvas, np.ones_like(x), color, speckle=style.uniform(0.05, 0.25))
    if style.random() < 0.5:
        pitch = style.uniform(0.4, 0.9)
        row, dy = shapes.cells(y, pitch)
        _, dx = shapes.cells(x + np.float32(pitch) * np.mod(row, 2), 2 * pitch)
        joint = canvas.cover(-shapes.box(dx, dy, pitch - 0.02, pitch / 2 - 0.02, 0.02), 2)
        canvas.paint(joint, (0.5, 0.5, 0.48), 0.03)
        canvas.relief(-joint * np.float32(0.03))
