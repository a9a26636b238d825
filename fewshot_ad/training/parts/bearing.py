"""Ball bearings."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one bearing."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, balls = materials.pick(style, materials.STEELS), int(style.integers(7, 14))
    outer, race = style.uniform(0.78, 0.9), style.uniform(0.52, 0.6)
    size = min(0.95 * np.pi * race / balls, 0.15)
    canvas.paint(canvas.cover(shapes.ring(x, y, race - size, race + size)), (0.07, 0.07, 0.07), 0.1)
    phase = canvas.rng.uniform(0, 2 * np.pi)  # the cage stops at a random angle
    offset = shapes.around(canvas.turn - np.float32(phase), balls)
    ball = np.hypot((canvas.radius - np.float32(race)), offset * np.float32(race)) - np.float32(size * 0.85)
    canvas.paint(canvas.cover(ball), color * 1.1, 0.9)
    canvas.relief(np.sqrt(np.maximum(np.float32((size * 0.85) ** 2) - (ball + np.float32(size * 0.85)) ** 2, 0)))
    for inner, rim in ((race + 0.75 * size, outer), (style.uniform(0.25, 0.32), race - 0.75 * size)):
        band = shapes.ring(x, y, inner, rim)
        materials.turned(canvas, canvas.cover(band), color, gloss=0.7, pitch=0.02)
        canvas.relief(canvas.bevel(band, 0.05) * np.float32(0.05))
