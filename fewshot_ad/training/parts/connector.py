"""Plug connectors with rows of contacts."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one connector."""
    style, x, y = canvas.style, canvas.x, canvas.y
    body, metal = materials.pick(style, materials.PLASTICS), materials.pick(style, materials.METALS)
    columns, rows = int(style.integers(4, 12)), int(style.integers(1, 4))
    wide, tall = 0.88, min(0.2 + 0.16 * rows, 0.7)
    outline = shapes.box(x, y, wide, tall, 0.05)
    materials.plastic(canvas, canvas.cover(outline), body)
    canvas.relief(canvas.bevel(outline, 0.05) * np.float32(0.05))
    well = shapes.box(x, y, wide - 0.08, tall - 0.08, 0.03)
    canvas.tint(1 - np.float32(0.45) * canvas.cover(well))
    canvas.relief(-canvas.bevel(well, 0.03) * np.float32(0.05))
    pitch = 2 * (wide - 0.14) / columns
    _column, dx = shapes.cells(x - np.float32((columns % 2 == 0) * pitch / 2), pitch)
    _row, dy = shapes.cells(y - np.float32((rows % 2 == 0) * pitch / 2), pitch)
    pin = shapes.box(dx, dy, pitch * 0.2, pitch * style.uniform(0.16, 0.3), 0.01)
    pin = np.maximum(pin, shapes.box(x, y, columns * pitch / 2, rows * pitch / 2))
    canvas.paint(canvas.cover(pin), metal, 0.8)
    canvas.relief(canvas.bevel(pin, 0.02) * np.float32(0.03))
    if style.random() < 0.6:  # the nose that keeps it from being plugged in upside down
        nose = shapes.box(x, y, 0.12, 0.05, 0.02, cy=-tall)
        materials.plastic(canvas, canvas.cover(nose), body)
