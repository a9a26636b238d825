"""Wood and machine screws lying on their side."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts import materials
from fewshot_ad.training.parts.canvas import Canvas


def build(canvas: Canvas) -> None:
    """Draw one screw."""
    style, x, y = canvas.style, canvas.x, canvas.y
    color, half = materials.pick(style, materials.METALS), style.uniform(0.1, 0.17)
    pitch, head = style.uniform(0.06, 0.12), style.uniform(0.26, 0.36)
    taper = np.clip((np.float32(0.85) - x) / np.float32(style.uniform(0.15, 0.5)), 0, 1)
    thread = np.float32(half) * (
        np.float32(0.82) + np.float32(0.18) * np.sin((x + y * np.float32(0.25)) * np.float32(2 * np.pi / pitch))
    )
    shaft = np.maximum(np.abs(y) - thread * taper, np.abs(x - np.float32(0.05)) - np.float32(0.8))
    cover = canvas.cover(shaft)
    materials.brushed(canvas, cover, color, gloss=0.6)
    around = np.sqrt(np.maximum(1 - (y / np.float32(half * 1.05)) ** 2, 0))
    groove = np.sin((x + y * np.float32(0.35)) * np.float32(2 * np.pi / pitch))
    canvas.relief(cover * (around * np.float32(half) + groove * np.float32(0.02)))
    cone = np.clip((x + np.float32(0.85)) / np.float32(0.22), 0, 1)
    cap = np.maximum(
        np.abs(y) - (np.float32(head) * (1 - cone) + np.float32(half) * cone),
        np.abs(x + np.float32(0.75)) - np.float32(0.12),
    )
    top = canvas.cover(cap)
    materials.brushed(canvas, top, color, gloss=0.6, across=True)
    canvas.relief(top * np.sqrt(np.maximum(1 - (y / np.float32(head * 1.05)) ** 2, 0)) * np.float32(head * 0.6))
