"""Molded screw caps with a knurled rim and an embossed sign."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one cap."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, ribs = materials.pick(style, materials.PLASTICS), int(style.integers(24, 72))
    outer = style.uniform(0.75, 0.9)
    edge = np.float32(outer) + np.float32(0.018) * np.cos(canvas.turn * np.float32(ribs))
    outline = canvas.radius - edge
    materials.plastic(canvas, canvas.cover(outline), color, gloss=style.uniform(0.15, 0.5))
    canvas.relief(canvas.bevel(outline, 0.12) * np.float32(0.1))
    rim = canvas.cover(shapes.ring(x, y, outer - 0.12, outer + 0.05), 2)
    canvas.relief(rim * np.cos(canvas.turn * np.float32(ribs)) * np.float32(0.012))
    canvas.relief(-canvas.bevel(shapes.disc(x, y, outer - 0.2), 0.05) * np.float32(0.03))
    sign = canvas.print(shapes.text(shapes.code(style, 3), thickness=6), (-0.4, -0.2, 0.4, 0.2))
    canvas.relief(sign * np.float32(0.02))
    canvas.relief(canvas.cover(shapes.disc(x, y, 0.04, 0, 0.42)) * np.float32(-0.02))
