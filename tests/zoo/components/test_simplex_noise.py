from __future__ import annotations

import itertools

import numpy as np
import torch

from fewshot_ad.zoo.components.simplex_noise import fractal, simplex, with_noise

PERMUTATION = np.random.default_rng(1).permutation(256)
EDGES = [g for g in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, g)) == 2]


def noise_of_all_corners(point: np.ndarray) -> float:
    """The noise by its definition: all corners of the skewed grid nearby, whatever simplex the point is in."""
    total = 0.0
    base = np.floor(point + point.sum() / 3).astype(int)
    for step in itertools.product(range(-2, 4), repeat=3):
        corner = base + step
        delta = point - (corner - corner.sum() / 6)
        reach = 0.5 - delta @ delta
        if reach > 0:
            x, y, z = corner % 256
            edge = EDGES[PERMUTATION[(PERMUTATION[(PERMUTATION[x] + y) % 256] + z) % 256] % 12]
            total += reach**4 * (edge @ delta)
    return 62 * total


def test_noise_is_the_sum_over_all_corners_in_reach() -> None:
    points = np.random.default_rng(0).uniform(-20, 300, (200, 3))
    expected = [noise_of_all_corners(point) for point in points]
    np.testing.assert_allclose(simplex(points, PERMUTATION), expected, atol=1e-9)


def test_noise_is_as_strong_as_opensimplex_and_within_1() -> None:
    noise = simplex(np.random.default_rng(0).uniform(0, 200, (50_000, 3)), PERMUTATION)
    assert 0.29 < noise.std() < 0.33
    assert np.abs(noise).max() < 1
    assert abs(noise.mean()) < 0.01


def test_octaves_add_up() -> None:
    noise = fractal((3, 6, 5), 32, np.random.default_rng(4))
    permutation = np.random.default_rng(4).permutation(256)
    point = np.array([[2, 5, 3]])
    expected = sum(0.6**k * simplex(point * 2**k / 32, permutation)[0] for k in range(6))
    assert np.isclose(noise[2, 5, 3], expected)


def test_each_image_gets_a_small_rectangle_of_noise_of_its_own() -> None:
    batch = torch.full((4, 3, 256, 256), 0.5)
    noisy = with_noise(batch, np.random.default_rng(0))
    assert (batch == 0.5).all()
    places = []
    for image in noisy:
        rows, columns = (image != 0.5).any(0).nonzero().unbind(1)
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert 9 <= height < 32
        assert 9 <= width < 32
        assert 0.02 < (image - 0.5).abs().max() < 0.5
        places.append((int(rows.min()), int(columns.min())))
    assert len(set(places)) == 4
    assert torch.equal(noisy, with_noise(batch, np.random.default_rng(0)))
