"""Pseudo-anomalies: a rectangle of simplex noise of several octaves, added to an image.

Source: Perlin 2001 (simplex noise); Wyatt et al. 2022, AnoDDPM (octaves); Tien et al. 2023, RD++ (rectangles, as in the
authors' public code).
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from fewshot_ad.arrays import Float64Array, IndexArray

OCTAVES, PERSISTENCE = 6, 0.6
# As shares of the image's side, published for 256 pixels: 32 for a wave of the first octave, 10 to less than 32 for the
# sides of a rectangle.
PERIOD, SMALLEST, LARGEST = 1 / 8, 10 / 256, 1 / 8
# Factor of the noise, for images in 0..1.
STRENGTH = 0.2
# The middles of a cube's edges, as Perlin proposes.
GRADIENTS = np.array([g for g in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, g)) == 2], np.float64)
# Reach of a corner of a simplex, squared: as far as the noise stays continuous. The factor makes the noise as strong as
# the authors' OpenSimplex: a standard deviation of 0.31.
REACH, SCALE = 0.5, 62.0


def simplex(points: Float64Array, permutation: IndexArray) -> Float64Array:
    """Simplex noise of points in space.

    Args:
        points: (..., 3) coordinates; one unit is about one wave.
        permutation: (256,), an order of 0..255 that decides the gradients of the grid's corners.

    Returns:
        (...), within -1..1.
    """
    cell = np.floor(points + points.sum(-1, keepdims=True) / 3).astype(np.int64)
    inside = points - (cell - cell.sum(-1, keepdims=True) / 6)
    # The corners of a simplex follow the axes in the order of the point's coordinates in the cell, the largest first.
    rank = np.argsort(np.argsort(-inside, axis=-1, kind="stable"), axis=-1)
    total = np.zeros(points.shape[:-1])
    for corner in range(4):
        step = rank < corner
        delta = inside - step + corner / 6
        x, y, z = np.moveaxis((cell + step) & 255, -1, 0)
        gradient = GRADIENTS[permutation[(permutation[(permutation[x] + y) & 255] + z) & 255] % len(GRADIENTS)]
        total += np.maximum(0, REACH - (delta**2).sum(-1)) ** 4 * (gradient * delta).sum(-1)
    return SCALE * total


def fractal(shape: tuple[int, int, int], period: float, rng: np.random.Generator) -> Float64Array:
    """Simplex noise of several octaves on a grid.

    Args:
        shape: Size of the grid.
        period: Points per wave of the first octave; each next one has half of it.
        rng: Draws the gradients, the same for all octaves.

    Returns:
        An array of that shape.
    """
    permutation = rng.permutation(256)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    octaves = (PERSISTENCE**octave * simplex(grid / (period / 2**octave), permutation) for octave in range(OCTAVES))
    return np.sum(list(octaves), axis=0)


def with_noise(batch: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Images (N, 3, S, S) in 0..1, each with noise of its own in a random rectangle; values may leave 0..1."""
    noisy = batch.clone()
    side = batch.shape[-1]
    shortest, longest = max(1, round(SMALLEST * side)), max(2, round(LARGEST * side))
    for image in noisy:
        height, width = rng.integers(shortest, longest, 2)
        top, left = rng.integers(0, side - height), rng.integers(0, side - width)
        noise = fractal((3, height, width), PERIOD * side, rng)
        image[:, top : top + height, left : left + width] += STRENGTH * torch.as_tensor(noise).float()
    return noisy
