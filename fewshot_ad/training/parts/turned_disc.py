"""Turned metal discs with steps and bores."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one disc."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, outer = materials.pick(style, materials.METALS), style.uniform(0.75, 0.92)
    outline = shapes.disc(x, y, outer)
    materials.turned(
        canvas, canvas.cover(outline), color, gloss=style.uniform(0.4, 0.8), pitch=style.uniform(0.015, 0.05)
    )
    canvas.relief(canvas.bevel(outline, 0.05) * np.float32(0.04))
    for step in sorted(style.uniform(0.25, outer - 0.08, int(style.integers(1, 5)))):
        canvas.relief(canvas.cover(shapes.disc(x, y, step), 2.5) * np.float32(style.choice([-1, 1]) * 0.025))
    count, place = int(style.integers(3, 9)), style.uniform(0.45, outer - 0.15)
    for n in range(count):
        angle = 2 * np.pi * n / count
        hole = shapes.disc(x, y, 0.055, place * np.cos(angle), place * np.sin(angle))
        canvas.paint(canvas.cover(hole), (0.04, 0.04, 0.04), 0.05)
        canvas.relief(-canvas.bevel(hole, 0.03) * np.float32(0.03))
    canvas.paint(canvas.cover(shapes.disc(x, y, style.uniform(0.08, 0.2))), (0.05, 0.05, 0.05), 0.05)
