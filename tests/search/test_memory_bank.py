from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.errors import NotEnrolledError
from fewshot_ad.search.memory_bank import MemoryBank, Origin, greedy_coreset, jl_projection
from fewshot_ad.search.nearest import normalize


def origin(n: int) -> Origin:
    zeros = np.zeros(n, np.int32)
    return Origin(zeros, zeros, np.zeros((n, 2), np.int32))


def clustered(seed: int, n: int = 3000, dims: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(40, dims)) * 3
    return (centers[rng.integers(0, 40, n)] + rng.normal(size=(n, dims))).astype(np.float32)


def brute_force(points: np.ndarray, budget: int) -> list[int]:
    points = points.astype(np.float64)
    picked = [int(np.argmax(((points - points.mean(axis=0)) ** 2).sum(axis=1)))]
    nearest = ((points - points[picked[0]]) ** 2).sum(axis=1)
    while len(picked) < budget:
        picked.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((points - points[picked[-1]]) ** 2).sum(axis=1))
    return picked


@pytest.mark.parametrize("budget", [2, 50, 700])
def test_coreset_is_the_brute_force_one(budget: int) -> None:
    points = clustered(0, n=5000)
    ours = greedy_coreset(points, budget)
    assert sorted(ours) == sorted(brute_force(points, budget))


def test_coreset_covers_far_better_than_chance_through_the_projection() -> None:
    points = clustered(1, dims=300)
    picked = greedy_coreset(points, 200, seed=3)
    assert len(set(picked)) == 200

    def cover(index: np.ndarray) -> float:
        squared = (points**2).sum(1)[:, None] + (points[index] ** 2).sum(1) - 2 * points @ points[index].T
        return float(squared.min(axis=1).max())

    chance = np.random.default_rng(0).permutation(len(points))[:200]
    assert cover(picked) < cover(chance)
    np.testing.assert_array_equal(picked, greedy_coreset(points, 200, seed=3))


def test_coreset_stops_at_repeats_and_takes_all_of_a_small_set() -> None:
    repeated = np.repeat(clustered(2, n=10), 100, axis=0)
    assert len(greedy_coreset(repeated, 50)) == 10
    np.testing.assert_array_equal(greedy_coreset(repeated[:20], 50), np.arange(20))


def test_coreset_reports_progress() -> None:
    calls: list[tuple[str, int, int]] = []
    greedy_coreset(clustered(3), 400, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("coreset", 400, 400)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_projection_keeps_distances() -> None:
    points = clustered(4, n=200, dims=500)
    projected = jl_projection(points, seed=0)
    before = np.linalg.norm(points[:100] - points[100:], axis=1)
    after = np.linalg.norm(projected[:100] - projected[100:], axis=1)
    assert projected.shape[1] == 128
    assert np.abs(after / before - 1).mean() < 0.1


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_search_and_nearest_agree_with_numpy(metric: str) -> None:
    bank_vectors = normalize(clustered(5, n=2500), metric)  # type: ignore[arg-type]
    queries = normalize(clustered(6, n=300), metric)  # type: ignore[arg-type]
    bank = MemoryBank(bank_vectors, origin(2500), metric)  # type: ignore[arg-type]
    stored = bank_vectors.astype(np.float16).astype(np.float64)
    distances = np.linalg.norm(queries[:, None].astype(np.float64) - stored[None], axis=2)
    if metric == "cosine":
        distances = distances**2 / 2
    expected = np.sort(distances, axis=1)[:, :5]
    found, index = bank.search(queries, 5)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(bank.nearest(queries), expected[:, 0], rtol=2e-3, atol=1e-4)
    np.testing.assert_array_equal(index[:, 0], distances.argmin(axis=1))


def test_cosine_distance_is_one_minus_cosine() -> None:
    a, b = np.array([[3.0, 0.0]], np.float32), np.array([[1.0, 1.0]], np.float32)
    bank = MemoryBank(normalize(a, "cosine"), origin(1), "cosine")
    assert bank.nearest(normalize(b, "cosine"))[0] == pytest.approx(1 - np.cos(np.pi / 4), abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), scale=st.floats(0.5, 20))
def test_order_of_the_bank_and_scale_of_features_do_not_matter(seed: int, scale: float) -> None:
    vectors, queries = clustered(seed, n=60), clustered(seed + 1, n=20)
    first = MemoryBank(vectors, origin(60), "l2").nearest(queries)
    shuffled = np.random.default_rng(seed).permutation(60)
    np.testing.assert_allclose(MemoryBank(vectors[shuffled], origin(60), "l2").nearest(queries), first, rtol=1e-4)
    scaled = MemoryBank(vectors * np.float32(scale), origin(60), "l2").nearest(queries * np.float32(scale))
    np.testing.assert_allclose(scaled, first * scale, rtol=5e-3, atol=1e-3 * scale)


def test_empty_bank_and_too_many_neighbors() -> None:
    with pytest.raises(NotEnrolledError, match="empty"):
        MemoryBank(np.empty((0, 4), np.float32), origin(0), "l2")
    distances, _ = MemoryBank(clustered(7, n=3), origin(3), "l2").search(clustered(8, n=2), 9)
    assert distances.shape == (2, 3)


def test_vectors_beyond_half_precision_are_kept_in_full() -> None:
    large = clustered(9, n=10) * np.float32(1e6)
    bank = MemoryBank(large, origin(10), "l2")
    assert bank.stored_dtype == np.float32
    np.testing.assert_array_equal(bank.vectors, large)
