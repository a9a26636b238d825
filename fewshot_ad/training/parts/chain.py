"""Roller chains."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one chain."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, pitch = materials.pick(style, materials.METALS), style.uniform(0.36, 0.55)
    wide = pitch * style.uniform(0.3, 0.36)
    shifted = x + np.float32(pitch * canvas.rng.uniform(-0.5, 0.5))
    for start, depth in ((0.0, 0.7), (pitch, 1.0)):
        _, offset = shapes.cells(shifted + np.float32(start), 2 * pitch)
        plate = shapes.segment(offset, y, (-pitch / 2, 0), (pitch / 2, 0), wide)
        waist = np.abs(y) - np.float32(wide * 0.72) - np.float32(0.9) * offset * offset / np.float32(pitch)
        plate = np.maximum(plate, waist)
        materials.brushed(canvas, canvas.cover(plate), color * depth)
        canvas.relief(canvas.bevel(plate, 0.04) * np.float32(0.05))
    _, offset = shapes.cells(shifted + np.float32(pitch / 2), pitch)
    pin = np.hypot(offset, y) - np.float32(wide * 0.42)
    canvas.paint(canvas.cover(pin), color * 1.15, 0.8)
    canvas.relief(canvas.bevel(pin, 0.06) * np.float32(0.05))
