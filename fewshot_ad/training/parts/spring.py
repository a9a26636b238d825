"""Coil springs from the side."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one spring."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, coils = materials.pick(style, materials.STEELS), int(style.integers(7, 16))
    half, wire = style.uniform(0.28, 0.42), style.uniform(0.028, 0.05)
    pitch = 1.6 / coils * (1 + 0.01 * canvas.rng.standard_normal())
    for lean, depth in ((-0.5, 0.5), (0.5, 1.0)):
        # The back half of each coil leans the other way and lies deeper.
        _, offset = shapes.cells(
            x - y * np.float32(lean * pitch / half) + np.float32(0 if depth == 1 else pitch / 2), pitch
        )
        rod = np.maximum(
            np.abs(offset) - np.float32(wire), np.maximum(np.abs(y) - np.float32(half), np.abs(x) - np.float32(0.8))
        )
        cover = canvas.cover(rod)
        materials.brushed(canvas, cover, color * depth, gloss=0.6, across=True)
        canvas.relief(
            cover * np.sqrt(np.maximum(1 - (offset / np.float32(wire * 1.05)) ** 2, 0)) * np.float32(wire * 1.2)
        )
