"""Plain and twill weaves."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one piece of fabric."""
    style, x, y = canvas.style, canvas.x, canvas.y
    warp, weft = materials.pick(style, materials.FIBERS), materials.pick(style, materials.FIBERS)
    pitch, twill = style.uniform(0.04, 0.11), int(style.integers(2, 5))
    sway = np.float32(0.12 * pitch)
    i, dx = shapes.cells(x + sway * canvas.noise(0.3, octaves=2), pitch)
    j, dy = shapes.cells(y + sway * canvas.noise(0.3, octaves=2), pitch)
    above = np.mod(i + j, twill) < 1
    across = np.cos(dy * np.float32(np.pi / pitch)), np.cos(dx * np.float32(np.pi / pitch))
    fiber = canvas.noise(0.015, octaves=2)
    shade = (1 + 0.08 * fiber)[..., None]
    canvas.paint(np.ones_like(x), np.where(above[..., None], warp, weft) * shade, 0.06)
    canvas.relief(np.where(above, across[1], across[0]) * np.float32(0.35 * pitch) + fiber * np.float32(0.002))
