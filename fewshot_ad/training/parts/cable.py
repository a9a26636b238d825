"""Cut cables: colored cores in a sheath."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one cable."""
    style, x, y = canvas.style, canvas.x, canvas.y
    outline = shapes.disc(x, y, style.uniform(0.78, 0.92))
    materials.rubber(
        canvas, canvas.cover(outline), materials.pick(style, ((0.5, 0.5, 0.5), (0.1, 0.1, 0.1), (0.7, 0.35, 0.1)))
    )
    canvas.relief(canvas.bevel(outline, 0.05) * np.float32(0.04))
    cores = int(style.integers(2, 6))
    size, place = min(0.42, 0.95 / cores), 0.42
    for n in range(cores):
        angle = 2 * np.pi * n / cores + 0.03 * canvas.rng.standard_normal()
        cx, cy = place * np.cos(angle), place * np.sin(angle)
        core = shapes.disc(x, y, size, cx, cy)
        materials.plastic(canvas, canvas.cover(core), materials.pick(style, materials.PLASTICS))
        canvas.relief(canvas.bevel(core, 0.05) * np.float32(0.04))
        wire = shapes.disc(x, y, size * 0.68, cx, cy)
        turn = canvas.rng.uniform(0, 6.28)
        u, v = (
            x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn)),
            y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn)),
        )
        row, dv = shapes.cells(v, 0.075)
        _, du = shapes.cells(u + np.float32(0.043) * np.mod(row, 2), 0.086)
        inside = canvas.cover(wire)
        canvas.paint(inside, (0.2, 0.1, 0.06), 0.1)
        strand = np.hypot(du, dv) - np.float32(0.038)
        canvas.paint(canvas.cover(strand) * inside, (0.72, 0.42, 0.26), 0.7)
        canvas.relief(canvas.bevel(strand, 0.03) * inside * np.float32(0.015))
