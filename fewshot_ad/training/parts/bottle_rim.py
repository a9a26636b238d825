"""Glass containers seen from above."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one rim."""
    style, x, y = canvas.style, canvas.x, canvas.y
    glass = materials.pick(style, ((0.25, 0.15, 0.05), (0.1, 0.25, 0.1), (0.6, 0.65, 0.65), (0.15, 0.2, 0.35)))
    outer = style.uniform(0.75, 0.92)
    body = shapes.disc(x, y, outer)
    canvas.paint(canvas.cover(body), materials.batch(canvas, glass), 0.5)
    canvas.relief(canvas.bevel(body, 0.25) * np.float32(0.2))
    bands = sorted(style.uniform(0.3, outer - 0.06, int(style.integers(3, 7))))
    for place in bands:
        band = shapes.ring(x, y, place - style.uniform(0.01, 0.04), place + 0.015)
        canvas.paint(canvas.cover(band, 2), glass * style.uniform(0.3, 2.6), 0.9)
        canvas.relief(canvas.bevel(band, 0.03) * np.float32(0.03))
    mouth = shapes.disc(x, y, bands[0] * style.uniform(0.75, 0.95))
    canvas.paint(canvas.cover(mouth), glass * 0.25, 0.3)
    spread = np.exp(-((shapes.around(canvas.turn - np.float32(style.uniform(0, 6)), 2) / np.float32(0.3)) ** 2))
    canvas.tint(1 + np.float32(0.8) * spread * canvas.cover(shapes.ring(x, y, bands[0], outer), 4))
