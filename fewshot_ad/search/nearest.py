"""How far the nearest of a set of vectors is: a matrix product and a minimum, on OpenVINO."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from fewshot_ad.arrays import Float32Array
from fewshot_ad.host.lifetime import ForkSafeLock, keep_in_children
from fewshot_ad.host.runtimes import import_openvino, signal_stack_kept

openvino = import_openvino()
ops = openvino.opset13

Metric: TypeAlias = Literal["l2", "cosine"]
# Queries at once: with a block of the vectors, 64 MB of distances.
MAX_QUERIES = 16_384
METRICS: tuple[Metric, ...] = ("l2", "cosine")


def normalize(embeddings: Float32Array, metric: Metric) -> Float32Array:
    """Bring embeddings (..., d) to the form the metric is searched in: unit length for `cosine`."""
    if metric == "l2":
        return embeddings
    length = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.maximum(length, np.float32(1e-12))


def to_distance(squared: Float32Array, metric: Metric) -> Float32Array:
    """Squared L2 distances of searched embeddings -> L2 distance, or cosine distance 1 - cos."""
    squared = np.maximum(squared, np.float32(0))
    return np.sqrt(squared) if metric == "l2" else squared * np.float32(0.5)


class NearestSearch:
    """Squared distance to the nearest of a set of vectors: a matrix product and a minimum, on OpenVINO.

    The product is in float32 and exact up to rounding: at the size of an inspection, a search over fewer dimensions
    or for the index of the nearest saves less than a bank of half the size (`benchmarks/levers.py`).

    Args:
        vectors: (n, d) float32.
        threads: Number of CPU threads; None leaves it to OpenVINO.
        lasting: Compile the vectors in (about 30 ms), for a set that is searched again and again. Otherwise they are
            handed to a model that all sets share, which is a third slower but starts at once; one search at a time.
    """

    def __init__(self, vectors: Float32Array, threads: int | None = None, lasting: bool = True) -> None:
        self._vectors = np.ascontiguousarray(vectors)
        self._threads = threads
        self._request: Any = None
        self._lock = ForkSafeLock()
        if lasting:
            queries = ops.parameter([-1, vectors.shape[1]], np.float32)
            tables = [ops.constant(table) for table in search_tables(self._vectors)]
            self._request = _request(_squared_graph(queries, tables), [queries], threads)

    def __call__(self, queries: Float32Array) -> Float32Array:
        """Squared distances (m,) float32 of queries (m, d) float32; rounding may leave them slightly below zero."""
        queries = np.ascontiguousarray(queries)
        if self._request is not None:
            with self._lock:
                blocks = [queries[at : at + MAX_QUERIES] for at in range(0, max(1, len(queries)), MAX_QUERIES)]
                nearest = [self._nearest_of(block) for block in blocks]
            return nearest[0] if len(nearest) == 1 else np.concatenate(nearest)
        else:
            if not len(queries):
                return np.zeros(0, np.float32)
            request, lock = _shared_nearest(self._vectors.shape[1], self._threads)
            with lock:
                vectors = openvino.Tensor(self._vectors, shared_memory=self._vectors.flags.writeable)
                # As many rows at a time as an inspection has, for the same reason as the blocks below.
                blocks = [queries[start : start + 1024] for start in range(0, len(queries), 1024)]
                return np.concatenate(
                    [request.infer([openvino.Tensor(block.copy()), vectors])[0].copy() for block in blocks]
                )

    def _nearest_of(self, queries: Float32Array) -> Float32Array:
        shared = openvino.Tensor(queries, shared_memory=queries.flags.writeable)
        return self._request.infer([shared])[0].copy()


def nearest_graph(embeddings: Any, tables: Sequence[Any], metric: Metric, bf16: bool = False) -> Any:
    """The same as OpenVINO nodes, for a graph of one's own.

    Args:
        embeddings: Node (m, d), not yet `normalize`d.
        tables: What `search_tables` gives, as nodes: constants, or inputs of the graph.
        metric: `l2` or `cosine`.
        bf16: Whether the graph will be compiled in bfloat16.

    Returns:
        Node (m,): distances in the metric.
    """
    axis, zero = ops.constant(np.array([1])), ops.constant(np.float32(0))
    if metric == "cosine":
        length = ops.sqrt(ops.reduce_sum(ops.multiply(embeddings, embeddings), axis, True))
        embeddings = ops.divide(embeddings, ops.maximum(length, ops.constant(np.float32(1e-12))))
    squared = ops.maximum((_squared_graph_bf16 if bf16 else _squared_graph)(embeddings, tables), zero)
    return ops.sqrt(squared) if metric == "l2" else ops.multiply(squared, ops.constant(np.float32(0.5)))


def search_tables(vectors: Float32Array, bf16: bool = False) -> list[Float32Array]:
    """What a search computes with: of each set of as many vectors, arrays of the same shapes.

    Args:
        vectors: (n, d) float32.
        bf16: Whether the graph will be compiled in bfloat16.

    Returns:
        The mean (1, d); then of each block of about a thousand vectors, which keep the product in the processor's cache
        until its minimum is taken, -2 b (m, d) and |b|^2 (1, m), b less the mean; in bfloat16 both in one, (m, d + 4).
    """
    # A common shift changes no distance, and the smaller the numbers, the smaller their rounding.
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    vectors = vectors - mean
    blocks = max(1, round(len(vectors) / 1000))
    if bf16:
        return [mean[None], *np.array_split(_rows_bf16(vectors), blocks)]
    tables = [mean[None]]
    for block in np.array_split(vectors, blocks):
        tables += [-2 * block, np.einsum("ij,ij->i", block, block)[None]]
    return tables


def _squared_graph(queries: Any, tables: Sequence[Any]) -> Any:
    """Queries (m, d) -> |q|^2 + min over the vectors b of |b|^2 - 2 q.b, (m,)."""
    queries = ops.subtract(queries, tables[0])
    axis = ops.constant(np.array([1]))
    smallest = None
    for doubled, squared in zip(tables[1::2], tables[2::2], strict=True):
        minimum = ops.reduce_min(ops.add(ops.matmul(queries, doubled, False, True), squared), axis, False)
        smallest = minimum if smallest is None else ops.minimum(smallest, minimum)
    return _add_length(smallest, queries)


def _rows_bf16(vectors: Float32Array) -> Float32Array:
    """Vectors (n, d) less their mean as rows of the product in bfloat16, (n, d + 4); see `_squared_graph_bf16`."""
    vectors = _round_bf16(vectors)
    parts, rest = [], np.einsum("ij,ij->i", vectors, vectors)
    for _ in range(3):
        parts.append(_round_bf16(rest))
        rest = rest - parts[-1]
    return np.concatenate([-2 * vectors, np.ones((len(vectors), 1), np.float32), np.stack(parts, 1)], 1)


def _squared_graph_bf16(queries: Any, tables: Sequence[Any]) -> Any:
    """The same where the product will be made in bfloat16: squared distances of queries and vectors rounded to it.

    Products of bfloat16 numbers are exact in the float32 they are summed in, so all that has to be saved from rounding
    is what comes after: the sum is stored as bfloat16, and it must be small where the distance is. Therefore the
    lengths are summed inside the product, |b|^2 as three numbers that bfloat16 holds exactly and the rounded |q|^2 as
    one, and the rest of |q|^2 is added behind it, where OpenVINO computes in float32 again. The distance is off by no
    more than the rounding of q and b themselves, 2^-9 of their lengths, instead of the root of that near zero.
    """
    rounded = _round_graph(ops.subtract(queries, tables[0]))
    axis = ops.constant(np.array([1]))
    length = ops.reduce_sum(ops.multiply(rounded, rounded), axis, True)
    coarse = _round_graph(length)
    ones = ops.add(ops.multiply(coarse, ops.constant(np.float32(0))), ops.constant(np.ones((1, 3), np.float32)))
    queries = ops.concat([rounded, coarse, ones], 1)
    smallest = None
    for rows in tables[1:]:
        minimum = ops.reduce_min(ops.matmul(queries, rows, False, True), axis, False)
        smallest = minimum if smallest is None else ops.minimum(smallest, minimum)
    return ops.add(smallest, ops.squeeze(ops.subtract(length, coarse), axis))


# Keeps the upper 8 of float32's 24 significant bits, as many as bfloat16 has (Dekker 1971; Veltkamp's constant).
_SPLIT = np.float32(65537)


def _round_bf16(values: Float32Array) -> Float32Array:
    shifted = values * _SPLIT
    return shifted - (shifted - values)


def _round_graph(values: Any) -> Any:
    shifted = ops.multiply(values, ops.constant(_SPLIT))
    return ops.subtract(shifted, ops.subtract(shifted, values))


@functools.cache
def searches_in_bf16() -> bool:
    """Whether distances near zero survive bfloat16 here.

    That rests on which nodes OpenVINO leaves in float32, which is its own affair, so it is tried once a process: each
    of some vectors is sought among themselves. Where it fails, the search has to be a model of its own in float32.
    """
    vectors = np.random.default_rng(0).standard_normal((64, 32), dtype=np.float32)
    queries = ops.parameter([64, 32], np.float32)
    tables = [ops.constant(table) for table in search_tables(vectors, bf16=True)]
    request = _request(nearest_graph(queries, tables, "l2", bf16=True), [queries], None, "bf16")
    # Of lengths of 5.7, rounded vectors leave 0.015 and rounded sums 0.5.
    return float(request.infer([vectors])[0].max()) < 0.1


def _add_length(smallest: Any, queries: Any) -> Any:
    axis = ops.constant(np.array([1]))
    return ops.add(smallest, ops.reduce_sum(ops.multiply(queries, queries), axis, False))


@functools.cache
def _shared_nearest(dims: int, threads: int | None) -> tuple[Any, ForkSafeLock]:
    """The same for vectors that come as a second input, and the lock that goes with the one request."""
    queries = ops.parameter([-1, dims], np.float32)
    vectors = ops.parameter([-1, dims], np.float32)
    axis = ops.constant(np.array([1]))
    squared = ops.reduce_sum(ops.multiply(vectors, vectors), axis, False)
    doubled = ops.multiply(queries, ops.constant(np.float32(-2)))
    smallest = ops.reduce_min(ops.add(ops.matmul(doubled, vectors, False, True), squared), axis, False)
    return _request(_add_length(smallest, queries), [queries, vectors], threads), ForkSafeLock()


def _request(output: Any, inputs: list[Any], threads: int | None, precision: str = "f32") -> Any:
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    with signal_stack_kept():
        compiled = openvino.Core().compile_model(openvino.Model([output], inputs), "CPU", config)
    return keep_in_children(compiled.create_infer_request())
