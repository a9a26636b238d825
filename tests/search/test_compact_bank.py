from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad.search.compact_bank import CompactBank


def brute(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Distance to the nearest vector, by numpy in float64."""
    difference = queries[:, None].astype(np.float64) - vectors[None].astype(np.float64)
    return np.sqrt(np.square(difference).sum(axis=2)).min(axis=1)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.3, (400, 96)).astype(np.float16)


def test_distances_are_off_by_little(vectors: np.ndarray) -> None:
    queries = np.random.default_rng(1).normal(0, 0.3, (50, 96)).astype(np.float32)
    expected = brute(queries, vectors)
    np.testing.assert_allclose(CompactBank(vectors, "l2", exact=True).nearest(queries), expected, rtol=1e-5)
    np.testing.assert_allclose(CompactBank(vectors, "l2").nearest(queries), expected, rtol=2.5e-3)
    distances, index = CompactBank(vectors, "l2").search(queries, 3)
    assert distances.shape == index.shape == (50, 3)
    np.testing.assert_allclose(distances[:, 0], expected, rtol=2.5e-3)


def test_it_takes_half_of_what_is_stored(vectors: np.ndarray) -> None:
    assert CompactBank(vectors, "l2", exact=True).nbytes == vectors.nbytes
    assert CompactBank(vectors, "l2").nbytes == vectors.nbytes // 2 + 2 * 4 * 96
    assert len(CompactBank(vectors, "l2")) == 400


def test_a_dimension_without_spread_stays_exact() -> None:
    flat = np.full((10, 4), 0.25, np.float16)
    assert np.array_equal(CompactBank(flat, "l2").vectors, np.full((10, 4), 0.25, np.float32))
