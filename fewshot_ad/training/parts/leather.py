"""Grained leather."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one hide."""
    style, x = canvas.style, canvas.x
    color, grain = materials.pick(style, (*materials.TREES, *materials.PLASTICS)), style.uniform(0.05, 0.12)
    pebbles = np.abs(canvas.noise(grain, octaves=3))
    canvas.paint(
        np.ones_like(x), materials.batch(canvas, color) * (0.85 + 0.1 * pebbles)[..., None], style.uniform(0.1, 0.35)
    )
    canvas.relief(np.minimum(pebbles, 1.2) * np.float32(0.25 * grain))
    canvas.tint(1 + np.float32(0.05) * canvas.noise(0.6))
