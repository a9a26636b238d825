"""Ground ferrite and magnet segments."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one segment."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color = materials.pick(style, ((0.3, 0.3, 0.31), (0.18, 0.18, 0.18), (0.42, 0.41, 0.4)))
    wide, tall = style.uniform(0.85, 1.1), style.uniform(0.5, 1.1)
    outline = shapes.box(x, y, wide, tall, 0.04)
    cover = canvas.cover(outline)
    materials.brushed(canvas, cover, color, gloss=style.uniform(0.1, 0.4), across=bool(style.integers(2)))
    canvas.tint(1 + np.float32(style.uniform(0.03, 0.12)) * canvas.noise(0.25, octaves=3))
    # The curved face reflects along a band, whose place differs from part to part.
    canvas.relief(np.float32(-0.25) * y * y + canvas.bevel(outline, 0.04) * np.float32(0.02))
    canvas.tint(1 + np.float32(0.08 * canvas.rng.standard_normal()) * y)
