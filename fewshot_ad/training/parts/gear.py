"""Spur gears."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one gear."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color = materials.pick(style, materials.METALS if style.random() < 0.7 else materials.PLASTICS)
    teeth, outer = int(style.integers(10, 36)), style.uniform(0.7, 0.88)
    depth, hub = min(4.5 * outer / teeth, 0.2), style.uniform(0.18, 0.3)
    flank = np.cos(canvas.turn * np.float32(teeth)) * np.float32(2.2)
    rim = np.float32(outer - depth / 2) + np.float32(depth / 2) * np.clip(flank, -1, 1)
    outline = np.maximum((canvas.radius - rim) * np.float32(0.7), -shapes.disc(x, y, hub))
    holes = int(style.integers(0, 7))
    for n in range(holes if holes > 2 else 0):
        angle = 2 * np.pi * n / holes
        spot = shapes.disc(x, y, 0.1, 0.5 * outer * np.cos(angle), 0.5 * outer * np.sin(angle))
        outline = np.maximum(outline, -spot)
    keyway = shapes.box(x, y, 0.05, 0.08, cy=-hub)
    outline = np.maximum(outline, -keyway)
    cover = canvas.cover(outline)
    materials.turned(canvas, cover, color, gloss=0.5, pitch=style.uniform(0.02, 0.06))
    canvas.relief(canvas.bevel(outline, 0.04) * np.float32(0.03))
    canvas.relief(-canvas.cover(shapes.ring(x, y, hub + 0.08, outer - depth - 0.08), 3) * np.float32(0.02))
