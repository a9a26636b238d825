"""Hexagon nuts, seen along the thread."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one nut."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, size = materials.pick(style, materials.METALS), style.uniform(0.6, 0.75)
    bore = size * style.uniform(0.45, 0.6)
    outline = np.maximum(shapes.polygon(x, y, 6, size), -shapes.disc(x, y, bore))
    cover = canvas.cover(outline)
    materials.brushed(canvas, cover, color, gloss=style.uniform(0.3, 0.7))
    # The corners are machined off; the thread is visible as rings in the bore.
    chamfer = np.clip((canvas.radius - np.float32(size)) / np.float32(0.12), 0, 1)
    canvas.relief(canvas.bevel(outline, 0.05) * np.float32(0.04) - chamfer * np.float32(0.05))
    wall = canvas.cover(shapes.ring(x, y, bore * 0.82, bore))
    canvas.paint(wall, color * 0.45, 0.4)
    canvas.relief(wall * np.sin((canvas.radius - bore) * np.float32(160) + canvas.turn) * np.float32(0.006))
