"""Hexagon bolt heads with a stamped strength class."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one bolt head."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, size = materials.pick(style, materials.METALS), style.uniform(0.5, 0.62)
    flange = shapes.disc(x, y, size * style.uniform(1.25, 1.4))
    cover = canvas.cover(flange)
    materials.turned(canvas, cover, color * 0.9)
    canvas.relief(canvas.bevel(flange, 0.1) * np.float32(0.03))
    head = shapes.polygon(x, y, 6, size)
    materials.cast(canvas, canvas.cover(head), color, grain=0.03, gloss=0.4)
    canvas.relief(canvas.bevel(head, 0.08) * np.float32(0.06))
    mark = shapes.text(str(style.choice(["8.8", "10.9", "12.9", "A2-70", "4.6"])), thickness=5)
    ink = canvas.print(mark, (-0.3, -0.13, 0.3, 0.13))
    canvas.relief(ink * np.float32(style.choice([-1, 1]) * 0.012))
