"""Solar cells with fingers and busbars."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one cell."""
    style, x, y = canvas.style, canvas.x, canvas.y
    dark = style.random() < 0.5  # an electroluminescence image is gray
    base = np.array((0.35, 0.35, 0.35)) if dark else np.array((0.06, 0.1, 0.3))
    outline = shapes.box(x, y, 0.97, 0.97, 0.08)
    cover = canvas.cover(outline)
    grain = canvas.noise(style.uniform(0.08, 0.3), octaves=2)
    facets = np.round(grain * 2) / 2
    canvas.paint(cover, materials.batch(canvas, base) * (1 + style.uniform(0.03, 0.2) * facets[..., None]), 0.25)
    _, finger = shapes.cells(y, style.uniform(0.03, 0.06))
    canvas.paint(canvas.cover(np.abs(finger) - np.float32(0.004)) * cover * np.float32(0.5), (0.5, 0.5, 0.5), 0.5)
    bars = int(style.integers(2, 6))
    _, bar = shapes.cells(x - np.float32((bars % 2 == 0) / bars), 2 / bars)
    canvas.paint(canvas.cover(np.abs(bar) - np.float32(0.025)) * cover, (0.12,) * 3 if dark else (0.72, 0.72, 0.7), 0.6)
    glow = canvas.noise(0.8, octaves=2)
    canvas.tint(1 + np.float32(0.1) * glow)
