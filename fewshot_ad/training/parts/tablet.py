"""Pressed tablets and capsules."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one tablet."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color = np.clip(materials.pick(style, materials.PLASTICS) + 0.35, 0, 0.95)
    kind = style.integers(3)
    if kind == 0:
        outline = shapes.disc(x, y, style.uniform(0.6, 0.8))
    elif kind == 1:
        outline = shapes.segment(x, y, (-0.45, 0), (0.45, 0), style.uniform(0.28, 0.4))
    else:
        outline = np.hypot(x / np.float32(0.85), y / np.float32(0.5)) * np.float32(0.5) - np.float32(0.5)
    cover = canvas.cover(outline)
    materials.stone(canvas, cover, color, speckle=style.uniform(0.01, 0.08))
    canvas.relief(canvas.bevel(outline, style.uniform(0.15, 0.35)) * np.float32(0.12))
    if style.random() < 0.5:
        canvas.relief(-canvas.cover(np.maximum(np.abs(x) - np.float32(0.025), outline), 2) * np.float32(0.03))
    else:
        mark = canvas.print(shapes.text(shapes.code(style, 3), thickness=5), (-0.33, -0.15, 0.33, 0.15))
        canvas.relief(-mark * np.float32(0.02))
