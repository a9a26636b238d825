"""Cut keys."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one key."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color = materials.pick(style, materials.METALS)
    bow = (
        shapes.disc(x, y, style.uniform(0.3, 0.4), -0.5)
        if style.random() < 0.5
        else shapes.box(x, y, 0.3, 0.35, 0.12, -0.5)
    )
    half = style.uniform(0.11, 0.15)
    cuts: np.ndarray = np.full_like(x, half)
    for place in np.linspace(0.05, 0.75, 6):
        depth = style.uniform(0.0, 0.6) * half
        cuts = np.minimum(
            cuts, np.float32(half - depth) + np.maximum(np.abs(x - np.float32(place)) - np.float32(0.02), 0)
        )
    tip = np.float32(0.9) - np.abs(y) * np.float32(0.8)
    blade = np.maximum(np.maximum(np.maximum(-y - cuts, y - np.float32(half)), x - tip), -x - np.float32(0.3))
    outline = np.maximum(np.minimum(bow, blade), -shapes.disc(x, y, 0.09, -0.62))
    materials.brushed(canvas, canvas.cover(outline), color, gloss=0.6)
    canvas.relief(canvas.bevel(outline, 0.03) * np.float32(0.03))
    groove = np.maximum(
        np.abs(y - np.float32(0.04)) - np.float32(0.02), np.abs(x - np.float32(0.25)) - np.float32(0.55)
    )
    canvas.relief(-canvas.cover(groove, 2) * np.float32(0.02))
    sign = canvas.print(shapes.text(shapes.code(style, 4), thickness=4), (-0.52, -0.08, -0.25, 0.08))
    canvas.relief(-sign * np.float32(0.012))
