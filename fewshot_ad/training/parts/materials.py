"""Materials: color, relief and gloss, applied to a covered area of the canvas."""

from __future__ import annotations

import numpy as np

from fewshot_ad.training.parts.canvas import Canvas, Field

STEELS = ((0.62, 0.62, 0.63), (0.5, 0.5, 0.52), (0.7, 0.69, 0.66), (0.4, 0.41, 0.43))
METALS = (*STEELS, (0.75, 0.6, 0.35), (0.72, 0.45, 0.32), (0.2, 0.2, 0.22))
PLASTICS = (
    (0.85, 0.84, 0.8),
    (0.08, 0.08, 0.09),
    (0.75, 0.12, 0.1),
    (0.1, 0.25, 0.6),
    (0.12, 0.45, 0.2),
    (0.85, 0.65, 0.1),
    (0.45, 0.46, 0.48),
    (0.9, 0.4, 0.1),
)
TREES = ((0.62, 0.44, 0.26), (0.45, 0.29, 0.17), (0.74, 0.59, 0.4), (0.3, 0.19, 0.12))
FIBERS = (*PLASTICS, (0.3, 0.28, 0.24), (0.55, 0.5, 0.42), (0.2, 0.3, 0.4), (0.5, 0.35, 0.4))


def pick(rng: np.random.Generator, palette: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """A random color of a palette, slightly varied."""
    return np.clip(np.array(palette[rng.integers(len(palette))]) * rng.uniform(0.85, 1.15, 3), 0.02, 0.97)


def batch(canvas: Canvas, color: np.ndarray, amount: float = 0.03) -> np.ndarray:
    """The color of one part: batches of a material differ a little."""
    return np.clip(color * (1 + amount * canvas.rng.standard_normal()), 0.02, 0.97)


def brushed(canvas: Canvas, cover: Field, color: np.ndarray, gloss: float = 0.5, across: bool = False) -> None:
    """Metal ground or rolled along one direction."""
    stretch = (1.0, 25.0) if across else (25.0, 1.0)
    grain = canvas.noise(0.02, stretch=stretch, octaves=2)
    canvas.paint(cover, batch(canvas, color) * (1 + 0.06 * grain[..., None]), gloss)
    canvas.relief(cover * grain * np.float32(0.0006))


def turned(canvas: Canvas, cover: Field, color: np.ndarray, gloss: float = 0.6, pitch: float = 0.03) -> None:
    """Metal from a lathe: concentric tool marks."""
    rings = np.sin(canvas.radius * np.float32(2 * np.pi / pitch) + canvas.rng.uniform(0, 6.28))
    grain = canvas.noise(0.015, stretch=(12.0, 1.0), octaves=1, at=(canvas.turn, canvas.radius))
    canvas.paint(cover, batch(canvas, color) * (1 + 0.05 * grain[..., None]), gloss)
    canvas.relief(cover * (rings * np.float32(0.0009) + grain * np.float32(0.0004)))


def cast(canvas: Canvas, cover: Field, color: np.ndarray, grain: float = 0.05, gloss: float = 0.15) -> None:
    """Rough metal from a sand mold."""
    rough = canvas.noise(grain, octaves=3)
    canvas.paint(cover, batch(canvas, color, 0.05) * (1 + 0.07 * rough[..., None]), gloss)
    canvas.relief(cover * rough * np.float32(0.003))


def plastic(canvas: Canvas, cover: Field, color: np.ndarray, gloss: float = 0.3) -> None:
    """Molded plastic: even, with a faint texture."""
    rough = canvas.noise(0.02, octaves=1)
    canvas.paint(cover, batch(canvas, color) * (1 + 0.012 * rough[..., None]), gloss)
    canvas.relief(cover * rough * np.float32(0.0005))


def rubber(canvas: Canvas, cover: Field, color: np.ndarray) -> None:
    """Rubber: dull and slightly mottled."""
    mottle = canvas.noise(0.08, octaves=3)
    canvas.paint(cover, batch(canvas, color) * (1 + 0.05 * mottle[..., None]), 0.06)
    canvas.relief(cover * mottle * np.float32(0.001))


def wood(canvas: Canvas, cover: Field, color: np.ndarray) -> None:
    """Wood: growth rings cut lengthwise, and pores."""
    bend = canvas.noise(0.6, stretch=(4.0, 1.0), octaves=2)
    lines = np.sin((canvas.y * np.float32(9) + bend * np.float32(0.9)) * np.float32(2.6) + canvas.rng.uniform(0, 6.28))
    pores = np.maximum(canvas.noise(0.012, stretch=(14.0, 1.0), octaves=1) - 1.2, 0)
    shade = 1 + 0.12 * lines + 0.05 * bend - 0.18 * pores
    canvas.paint(cover, batch(canvas, color, 0.06) * shade[..., None], 0.08)
    canvas.relief(-cover * pores * np.float32(0.003))


def paper(canvas: Canvas, cover: Field, color: np.ndarray) -> None:
    """Paper or card: fibers."""
    fiber = canvas.noise(0.02, octaves=2)
    canvas.paint(cover, batch(canvas, color, 0.015) * (1 + 0.012 * fiber[..., None]), 0.04)


def stone(canvas: Canvas, cover: Field, color: np.ndarray, speckle: float = 0.12) -> None:
    """Ceramic, stone, concrete: speckles of several sizes."""
    mottle = canvas.noise(0.1, octaves=4)
    specks = canvas.noise(0.012, octaves=1)
    shade = 1 + speckle * (0.4 * mottle + 0.6 * np.sign(specks) * np.maximum(np.abs(specks) - 1, 0))
    canvas.paint(cover, batch(canvas, color) * shade[..., None], 0.12)
    canvas.relief(cover * mottle * np.float32(0.0015))


def baked(canvas: Canvas, cover: Field, color: np.ndarray) -> None:
    """Dough: bubbles, and darker where it rose."""
    rise = canvas.noise(0.25, octaves=3)
    crumbs = canvas.noise(0.03, octaves=2)
    canvas.paint(cover, batch(canvas, color, 0.06) * (1 - 0.08 * rise - 0.06 * crumbs)[..., None], 0.05)
    canvas.relief(cover * (rise * np.float32(0.012) + crumbs * np.float32(0.004)))
