"""Cast wheels with curved vanes."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials, shapes
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one impeller."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, vanes = materials.pick(style, materials.STEELS), int(style.integers(5, 10))
    outer, twist = style.uniform(0.8, 0.95), style.uniform(-1.8, 1.8)
    outline = shapes.disc(x, y, outer)
    materials.cast(canvas, canvas.cover(outline), color, grain=style.uniform(0.03, 0.08))
    canvas.relief(canvas.bevel(outline, 0.08) * np.float32(0.06))
    bent = canvas.turn + np.float32(twist) * canvas.radius
    vane = np.abs(shapes.around(bent, vanes)) * canvas.radius - np.float32(0.035)
    vane = np.maximum(vane, shapes.ring(x, y, 0.28, outer - 0.1))
    canvas.relief(canvas.cover(vane, 4) * np.float32(0.05))
    canvas.tint(1 + np.float32(0.12) * canvas.cover(vane, 3))
    hub = shapes.disc(x, y, 0.26)
    materials.turned(canvas, canvas.cover(hub), color * 1.1)
    canvas.relief(canvas.bevel(hub, 0.06) * np.float32(0.05))
    canvas.paint(canvas.cover(shapes.disc(x, y, 0.12)), (0.05, 0.05, 0.05), 0.1)
