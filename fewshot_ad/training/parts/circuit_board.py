"""Bare printed circuit boards."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one board."""
    style, x, y = canvas.style, canvas.x, canvas.y
    lacquer = np.array(
        [(0.05, 0.3, 0.12), (0.05, 0.1, 0.35), (0.35, 0.05, 0.06), (0.06, 0.06, 0.06)][style.integers(4)]
    )
    copper = np.array((0.75, 0.6, 0.3))
    canvas.paint(np.ones_like(x), lacquer, 0.3)
    lines: np.ndarray = np.full_like(x, 9)
    for _ in range(int(style.integers(10, 20))):
        start = style.uniform(-1, 1, 2)
        for _ in range(3):
            angle = style.integers(8) * np.pi / 4
            end = start + style.uniform(0.15, 0.7) * np.array((np.cos(angle), np.sin(angle)))
            lines = np.minimum(lines, shapes.segment(x, y, tuple(start), tuple(end), 0.016))
            start = end
        pad = shapes.disc(x, y, 0.05, start[0], start[1])
        canvas.paint(canvas.cover(pad), copper, 0.7)
        canvas.paint(canvas.cover(shapes.disc(x, y, 0.02, start[0], start[1])), (0.03, 0.03, 0.03), 0.0)
    track = canvas.cover(lines)
    canvas.tint(1 + np.float32(0.7) * track * canvas.cover(-canvas.albedo[..., 0] + np.float32(0.7)))
    canvas.relief(track * np.float32(0.006))
    for _ in range(int(style.integers(2, 6))):
        cx, cy = style.uniform(-0.8, 0.8, 2)
        _, offset = shapes.cells(x - np.float32(cx), 0.09)
        pads = np.maximum(shapes.box(offset, y, 0.028, 0.07, 0.0, cy=cy), shapes.box(x, y, 0.3, 0.1, cx=cx, cy=cy))
        canvas.paint(canvas.cover(pads), (0.7, 0.7, 0.68), 0.8)
    label = canvas.print(shapes.text(shapes.code(style, 5), thickness=3), (-0.8, 0.72, -0.3, 0.86))
    canvas.paint(label, (0.9, 0.9, 0.88), 0.1)
    canvas.tint(1 + np.float32(0.03) * canvas.noise(0.3))
