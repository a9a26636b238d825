"""Looped and cut carpets."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one piece of carpet."""
    style, x, y = canvas.style, canvas.x, canvas.y
    base, other = materials.pick(style, materials.FIBERS), materials.pick(style, materials.FIBERS)
    tuft = canvas.noise(style.uniform(0.03, 0.07), octaves=2)
    mix = np.clip(0.5 + style.uniform(0.2, 0.8) * canvas.noise(0.04, octaves=1), 0, 1)[..., None]
    canvas.paint(np.ones_like(x), (base * mix + other * (1 - mix)) * (1 + 0.15 * tuft[..., None]), 0.02)
    canvas.relief(tuft * np.float32(0.025))
    if style.random() < 0.5:
        _, row = shapes.cells(y, style.uniform(0.08, 0.14))
        canvas.relief(np.cos(row * np.float32(40)) * np.float32(0.02))
