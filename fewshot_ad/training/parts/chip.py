"""Integrated circuits with legs."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one chip."""
    style, x, y = canvas.style, canvas.x, canvas.y
    wide, tall, legs = style.uniform(0.5, 0.75), style.uniform(0.4, 0.6), int(style.integers(4, 13))
    pitch = 2 * (wide - 0.06) / legs
    _, offset = shapes.cells(x - np.float32((legs % 2 == 0) * pitch / 2), pitch)
    leg = np.maximum(shapes.box(offset, y, pitch * 0.24, tall + 0.22), np.abs(x) - np.float32(legs * pitch / 2))
    canvas.paint(canvas.cover(leg), (0.72, 0.72, 0.7), 0.8)
    bend = np.clip((np.abs(y) - np.float32(tall)) / np.float32(0.2), 0, 1)
    canvas.relief(canvas.cover(leg) * (1 - bend) * np.float32(0.05))
    body = shapes.box(x, y, wide, tall, 0.02)
    materials.plastic(canvas, canvas.cover(body), np.array((0.1, 0.1, 0.11)), gloss=0.25)
    canvas.relief(canvas.bevel(body, 0.06) * np.float32(0.08))
    dot = shapes.disc(x, y, 0.05, -wide + 0.14, tall - 0.14)
    canvas.relief(-canvas.bevel(dot, 0.03) * np.float32(0.02))
    for line, characters in enumerate((shapes.code(style, 6), shapes.code(style, 8))):
        top = -0.2 + 0.2 * line
        ink = canvas.print(shapes.text(characters, thickness=3), (-0.6 * wide, top, 0.7 * wide, top + 0.17))
        canvas.paint(ink * np.float32(0.8), (0.6, 0.6, 0.58), 0.1)
