"""Axial resistors with color bands."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one resistor."""
    style, x, y = canvas.style, canvas.x, canvas.y
    rod = shapes.segment(x, y, (-1.2, 0), (1.2, 0), 0.025)
    materials.brushed(canvas, canvas.cover(rod), np.array((0.7, 0.7, 0.7)), gloss=0.8)
    canvas.relief(canvas.bevel(rod, 0.02) * np.float32(0.02))
    thick, long = style.uniform(0.15, 0.24), style.uniform(0.4, 0.55)
    waist = np.float32(thick) * (1 - np.float32(0.18) * (np.abs(x) < np.float32(long * 0.6)))
    body = np.maximum(np.abs(y) - waist, np.abs(x) - np.float32(long)) - np.float32(0.03)
    cover = canvas.cover(body)
    materials.plastic(canvas, cover, materials.pick(style, ((0.75, 0.62, 0.42), (0.4, 0.6, 0.7), (0.7, 0.7, 0.65))))
    for place in np.linspace(-0.75, 0.75, int(style.integers(4, 7))):
        band = np.maximum(body, np.abs(x - np.float32(place * long)) - np.float32(0.035))
        canvas.paint(canvas.cover(band), materials.pick(style, materials.PLASTICS), 0.3)
    canvas.relief(cover * np.sqrt(np.maximum(1 - (y / np.float32(thick * 1.2)) ** 2, 0)) * np.float32(thick * 0.8))
