"""Knitted cloth."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one piece of knitwear."""
    style, x, y = canvas.style, canvas.x, canvas.y
    yarn, pitch = materials.pick(style, materials.FIBERS), style.uniform(0.08, 0.16)
    sway = np.float32(0.08 * pitch)
    _column, dx = shapes.cells(x + sway * canvas.noise(0.4), pitch)
    slanted = y + sway * canvas.noise(0.4) - np.abs(dx) * np.float32(1.1)
    _, dy = shapes.cells(slanted, pitch * 0.8)
    loop = np.cos(dy * np.float32(np.pi / (0.8 * pitch))) * np.cos(dx * np.float32(np.pi / pitch)) ** 2
    strand = np.sin((dx * np.float32(np.sign(1)) + dy * 2) * np.float32(26 / pitch * 0.1))
    fuzz = canvas.noise(0.012, octaves=2)
    canvas.paint(np.ones_like(x), materials.batch(canvas, yarn) * (0.55 + 0.45 * loop + 0.07 * fuzz)[..., None], 0.03)
    canvas.relief(loop * np.float32(0.4 * pitch) + strand * np.float32(0.004))
