"""Rubber seals."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one ring."""
    style, _x, _y = canvas.style, canvas.x, canvas.y
    color = materials.pick(style, ((0.06, 0.06, 0.06), (0.45, 0.12, 0.08), (0.1, 0.2, 0.45), (0.5, 0.5, 0.5)))
    place, thick = style.uniform(0.5, 0.75), style.uniform(0.08, 0.2)
    # A rubber ring is never exactly round.
    oval = canvas.radius * (1 + np.float32(0.012 * canvas.rng.standard_normal()) * np.cos(2 * canvas.turn))
    outline = np.abs(oval - np.float32(place)) - np.float32(thick)
    cover = canvas.cover(outline)
    materials.rubber(canvas, cover, color)
    canvas.gloss = canvas.gloss + cover * np.float32(style.uniform(0.05, 0.3))
    canvas.relief(np.sqrt(np.maximum(np.float32(thick**2) - (outline + np.float32(thick)) ** 2, 0)))
