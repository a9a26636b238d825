"""Printed labels."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one label."""
    style, x, y = canvas.style, canvas.x, canvas.y
    outline = shapes.box(x, y, 0.95, style.uniform(0.55, 0.9), 0.05)
    cover = canvas.cover(outline)
    materials.paper(canvas, cover, np.array((0.9, 0.9, 0.87)))
    canvas.relief(canvas.bevel(outline, 0.01) * np.float32(0.01))
    ink = materials.pick(style, ((0.05, 0.05, 0.05), (0.1, 0.2, 0.5), (0.6, 0.1, 0.1)))
    bar = canvas.cover(np.maximum(shapes.box(x, y, 0.85, 0.1, cy=-0.4), outline))
    canvas.paint(bar, materials.pick(style, materials.PLASTICS), 0.05)
    for line in range(4):
        words = " ".join(shapes.code(style, int(style.integers(3, 8))) for _ in range(2))
        top = -0.25 + 0.16 * line
        canvas.paint(canvas.print(shapes.text(words, thickness=4), (-0.85, top, 0.1, top + 0.13)), ink, 0.05)
    bits = np.repeat(style.integers(0, 2, 48), 4).astype(np.uint8) * 255
    canvas.paint(canvas.print(np.tile(bits, (32, 1)), (0.2, -0.2, 0.85, 0.3)), (0.04, 0.04, 0.04), 0.05)
