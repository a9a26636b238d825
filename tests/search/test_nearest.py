from __future__ import annotations

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from fewshot_ad.encoder.engine import has_bf16
from fewshot_ad.search.nearest import Metric, NearestSearch, nearest_graph, normalize, search_tables, searches_in_bf16


def exact(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(((queries[:, None].astype(np.float64) - vectors) ** 2).sum(axis=2).min(axis=1))


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    # Far from the origin and of unequal spread, as features are.
    return rng.standard_normal((1500, 48), dtype=np.float32) * rng.uniform(0.1, 2, 48).astype(np.float32) + 3


@pytest.fixture(scope="module")
def queries(vectors: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    near = vectors[:100] + rng.standard_normal((100, 48), dtype=np.float32) * np.float32(0.05)
    return np.concatenate([vectors[:100], near, rng.standard_normal((100, 48), dtype=np.float32)])


@pytest.mark.parametrize("lasting", [True, False])
def test_search_is_exact_up_to_rounding(vectors: np.ndarray, queries: np.ndarray, lasting: bool) -> None:
    squared = NearestSearch(vectors, lasting=lasting)(queries)
    np.testing.assert_allclose(np.sqrt(np.maximum(squared, 0)), exact(queries, vectors), atol=2e-2)


def test_many_queries_are_searched_in_blocks(
    vectors: np.ndarray, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = NearestSearch(vectors)
    at_once = search(queries)
    monkeypatch.setattr("fewshot_ad.search.nearest.MAX_QUERIES", 70)
    np.testing.assert_allclose(search(queries), at_once, atol=1e-4)
    assert search(queries[:0]).shape == (0,)


@pytest.mark.skipif(not has_bf16(), reason="NO BFLOAT16 on this processor")
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_in_bfloat16_distances_near_zero_survive(vectors: np.ndarray, queries: np.ndarray, metric: Metric) -> None:
    assert searches_in_bf16()
    rows = normalize(vectors, metric)
    asked = ops.parameter([-1, 48], np.float32)
    tables = [ops.constant(table) for table in search_tables(rows, bf16=True)]
    graph = nearest_graph(asked, tables, metric, bf16=True)
    config = {"INFERENCE_PRECISION_HINT": "bf16"}
    request = openvino.Core().compile_model(openvino.Model([graph], [asked]), "CPU", config).create_infer_request()
    got = request.infer([queries])[0]
    wanted = exact(normalize(queries, metric), rows)
    if metric == "cosine":
        got = np.sqrt(2 * got)
    length = np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean()
    # Rounded sums would be off by 6% of the lengths.
    assert np.abs(got - wanted).max() < 0.012 * length
