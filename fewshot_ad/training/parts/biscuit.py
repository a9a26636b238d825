"""Baked biscuits with a stamped pattern."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one biscuit."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, lobes = (
        materials.pick(style, ((0.72, 0.5, 0.28), (0.5, 0.3, 0.15), (0.8, 0.65, 0.4))),
        int(style.integers(0, 24)),
    )
    swell = 1 + 0.02 * canvas.rng.standard_normal()
    edge = (
        np.float32(0.78 * swell)
        + np.float32(0.025) * np.cos(canvas.turn * np.float32(lobes))
        + np.float32(0.008) * canvas.noise(0.5)
    )
    outline = canvas.radius - edge if style.random() < 0.7 else shapes.box(x, y, 0.8 * swell, 0.6 * swell, 0.1)
    cover = canvas.cover(outline)
    materials.baked(canvas, cover, color)
    canvas.relief(canvas.bevel(outline, 0.15) * np.float32(0.08))
    canvas.tint(1 - np.float32(0.25) * (1 - canvas.bevel(outline, 0.12)))
    count = int(style.integers(6, 14))
    dots = np.hypot(canvas.radius - np.float32(0.5), shapes.around(canvas.turn, count) * np.float32(0.5)) - np.float32(
        0.035
    )
    canvas.tint(1 - np.float32(0.4) * canvas.cover(dots, 2) * cover)
    canvas.relief(-canvas.cover(dots, 2) * np.float32(0.03))
    if style.random() < 0.5:  # pieces of chocolate at random places
        for _ in range(int(style.integers(5, 9))):
            cx, cy = canvas.rng.uniform(-0.5, 0.5, 2)
            chip = shapes.disc(x, y, canvas.rng.uniform(0.05, 0.1), cx, cy) + np.float32(0.02) * canvas.noise(0.1)
            canvas.paint(canvas.cover(chip, 2) * cover, (0.14, 0.08, 0.05), 0.15)
            canvas.relief(canvas.bevel(chip, 0.05) * np.float32(0.03))
