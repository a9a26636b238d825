"""Coreset and kNN: the patch embeddings of good parts, thinned, and how far a new patch is from them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import openvino
from openvino import opset13 as ops

from fewshot_ad.errors import NotEnrolledError
from fewshot_ad.images import Float32Array

Metric: TypeAlias = Literal["l2", "cosine"]
METRICS: tuple[Metric, ...] = ("l2", "cosine")
Progress: TypeAlias = Callable[[str, int, int], None]
Int32Array: TypeAlias = npt.NDArray[np.int32]
IndexArray: TypeAlias = npt.NDArray[np.int64]

JL_DIMS = 128
WINDOW = 2048
FLOAT16_MAX = 6e4


def jl_projection(embeddings: Float32Array, seed: int, dims: int = JL_DIMS) -> Float32Array:
    """Random projection that keeps distances to within about sqrt(8 ln(n) / dims), and so the order of coverage.

    Args:
        embeddings: (n, d) float32.
        seed: Of the projection.
        dims: Dimensions to keep; embeddings of no more dimensions are returned as they are.

    Source: Johnson & Lindenstrauss 1984, with Gaussian entries (Dasgupta & Gupta 2003).
    """
    if embeddings.shape[1] <= dims:
        return np.ascontiguousarray(embeddings)
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((embeddings.shape[1], dims), dtype=np.float32) / np.float32(np.sqrt(dims))
    return np.ascontiguousarray(embeddings @ matrix)


def greedy_coreset(
    embeddings: Float32Array,
    budget: int,
    seed: int = 0,
    progress: Progress | None = None,
    threads: int | None = None,
) -> IndexArray:
    """Greedy k-centre: pick, again and again, the embedding farthest from all picked so far.

    Exact (on the projected embeddings, up to float32 rounding) and deterministic. A distance to the nearest pick can
    only shrink, so a stale one is an upper bound: picks are made within a window of the largest distances as long as
    its maximum exceeds every stale distance outside, which makes it the maximum of all. Then all distances are brought
    up to date with the new picks in one matrix product, and the window is drawn anew.

    Args:
        embeddings: (n, d) float32.
        budget: How many to pick; fewer are returned if n is smaller or the rest repeat what is picked.
        seed: Of the projection.
        progress: Called as `progress("coreset", done, budget)` between windows.
        threads: Number of CPU threads of the search; None leaves it to OpenVINO.

    Returns:
        Indices (k,) int64 in the order picked; the first is the embedding farthest from the mean.

    Source: Roth et al. 2022 (PatchCore), algorithm 1; Gonzalez 1985.
    """
    n = len(embeddings)
    if n <= budget:
        return np.arange(n, dtype=np.int64)
    points = jl_projection(embeddings, seed)
    squared = np.einsum("ij,ij->i", points, points)
    repeats = 1e-6 * float(squared.max())
    offset = points - points.mean(axis=0)
    picked = np.empty(budget, np.int64)
    picked[0] = int(np.argmax(np.einsum("ij,ij->i", offset, offset)))
    nearest = np.full(n, np.inf, np.float32)
    done, count = 0, 1
    while count < budget:
        np.minimum(nearest, NearestSearch(points[picked[done:count]], threads, lasting=False)(points), out=nearest)
        nearest[picked[:count]] = 0
        done = count
        if progress is not None:
            progress("coreset", count, budget)
        size = min(WINDOW, n - 1)
        window = np.argpartition(nearest, n - size)[n - size :]
        outside = float(np.delete(nearest, window).max())
        bound, near, near_squared = nearest[window], points[window], squared[window]
        while count < budget:
            at = int(np.argmax(bound))
            if bound[at] < outside:
                break
            if bound[at] <= repeats:
                return picked[:count]
            picked[count] = window[at]
            count += 1
            distance = near_squared + near_squared[at] - 2 * (near @ near[at])
            np.minimum(bound, distance, out=bound)
            bound[at] = 0
    if progress is not None:
        progress("coreset", budget, budget)
    return picked


def nearest_of_others(embeddings: Float32Array, picked: IndexArray, groups: Int32Array) -> IndexArray:
    """For each picked embedding, the nearest one of another group.

    Args:
        embeddings: (n, d) float32.
        picked: (k,) int64 indices into them.
        groups: (n,) int32 group of each embedding, at least two different ones.

    Returns:
        (k,) int64 indices into the embeddings.
    """
    squared = np.einsum("ij,ij->i", embeddings, embeddings)
    smallest = np.full(len(picked), np.inf, np.float32)
    found = np.zeros(len(picked), np.int64)
    for group in np.unique(groups):
        members, others = np.flatnonzero(groups == group), np.flatnonzero(groups[picked] != group)
        queries = -2 * embeddings[picked[others]]
        # Tiles of some megabytes stay in the processor's cache.
        for start in range(0, len(members), 1024):
            rows = members[start : start + 1024]
            tile = queries @ embeddings[rows].T
            tile += squared[rows]
            at = tile.argmin(axis=1)
            value = tile[np.arange(len(tile)), at]
            better = value < smallest[others]
            smallest[others[better]] = value[better]
            found[others[better]] = rows[at[better]]
    return found


def normalise(embeddings: Float32Array, metric: Metric) -> Float32Array:
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
            handed to a model that all sets share, which is a third slower but starts at once.
    """

    def __init__(self, vectors: Float32Array, threads: int | None = None, lasting: bool = True) -> None:
        self._vectors = np.ascontiguousarray(vectors)
        self._threads = threads
        self._request: Any = None
        self._lock = threading.Lock()
        if lasting:
            queries = ops.parameter([-1, vectors.shape[1]], np.float32)
            self._request = _request(_squared_graph(queries, self._vectors), [queries], threads)

    def __call__(self, queries: Float32Array) -> Float32Array:
        """Squared distances (m,) float32 of queries (m, d) float32; rounding may leave them slightly below zero."""
        queries = np.ascontiguousarray(queries)
        if self._request is not None:
            with self._lock:
                shared = openvino.Tensor(queries, shared_memory=queries.flags.writeable)
                return self._request.infer([shared])[0].copy()
        else:
            request, lock = _shared_nearest(self._vectors.shape[1], self._threads)
            with lock:
                vectors = openvino.Tensor(self._vectors, shared_memory=self._vectors.flags.writeable)
                # As many rows at a time as an inspection has, for the same reason as the blocks below.
                blocks = [queries[start : start + 1024] for start in range(0, len(queries), 1024)]
                return np.concatenate(
                    [request.infer([openvino.Tensor(block.copy()), vectors])[0].copy() for block in blocks]
                )


def nearest_graph(embeddings: Any, vectors: Float32Array, metric: Metric, bf16: bool = False) -> Any:
    """The same as OpenVINO nodes, for a graph of one's own.

    Args:
        embeddings: Node (m, d), not yet `normalise`d.
        vectors: (n, d) float32.
        metric: `l2` or `cosine`.
        bf16: Whether the graph will be compiled in bfloat16.

    Returns:
        Node (m,): distances in the metric.
    """
    axis, zero = ops.constant(np.array([1])), ops.constant(np.float32(0))
    if metric == "cosine":
        length = ops.sqrt(ops.reduce_sum(ops.multiply(embeddings, embeddings), axis, True))
        embeddings = ops.divide(embeddings, ops.maximum(length, ops.constant(np.float32(1e-12))))
    squared = ops.maximum((_squared_graph_bf16 if bf16 else _squared_graph)(embeddings, vectors), zero)
    return ops.sqrt(squared) if metric == "l2" else ops.multiply(squared, ops.constant(np.float32(0.5)))


def _squared_graph(queries: Any, vectors: Float32Array) -> Any:
    """Queries (m, d) -> |q|^2 + min over the vectors b of |b|^2 - 2 q.b, (m,)."""
    # A common shift changes no distance, and the smaller the numbers, the smaller their rounding.
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    queries, vectors = ops.subtract(queries, ops.constant(mean[None])), vectors - mean
    axis = ops.constant(np.array([1]))
    smallest = None
    # About a thousand vectors at a time keep the product in the processor's cache until its minimum is taken.
    for block in np.array_split(vectors, max(1, round(len(vectors) / 1000))):
        product = ops.matmul(queries, ops.constant(-2 * block), False, True)
        squared = ops.constant(np.einsum("ij,ij->i", block, block)[None])
        minimum = ops.reduce_min(ops.add(product, squared), axis, False)
        smallest = minimum if smallest is None else ops.minimum(smallest, minimum)
    return _add_length(smallest, queries)


def _squared_graph_bf16(queries: Any, vectors: Float32Array) -> Any:
    """The same where the product will be made in bfloat16: squared distances of queries and vectors rounded to it.

    Products of bfloat16 numbers are exact in the float32 they are summed in, so all that has to be saved from rounding
    is what comes after: the sum is stored as bfloat16, and it must be small where the distance is. Therefore the
    lengths are summed inside the product, |b|^2 as three numbers that bfloat16 holds exactly and the rounded |q|^2 as
    one, and the rest of |q|^2 is added behind it, where OpenVINO computes in float32 again. The distance is off by no
    more than the rounding of q and b themselves, 2^-9 of their lengths, instead of the root of that near zero.
    """
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    rounded = _round_graph(ops.subtract(queries, ops.constant(mean[None])))
    axis = ops.constant(np.array([1]))
    length = ops.reduce_sum(ops.multiply(rounded, rounded), axis, True)
    coarse = _round_graph(length)
    ones = ops.add(ops.multiply(coarse, ops.constant(np.float32(0))), ops.constant(np.ones((1, 3), np.float32)))
    queries = ops.concat([rounded, coarse, ones], 1)
    vectors = _round_bf16(vectors - mean)
    parts, rest = [], np.einsum("ij,ij->i", vectors, vectors)
    for _ in range(3):
        parts.append(_round_bf16(rest))
        rest = rest - parts[-1]
    rows = np.concatenate([-2 * vectors, np.ones((len(vectors), 1), np.float32), np.stack(parts, 1)], 1)
    smallest = None
    for block in np.array_split(rows, max(1, round(len(rows) / 1000))):
        minimum = ops.reduce_min(ops.matmul(queries, ops.constant(block), False, True), axis, False)
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
    request = _request(nearest_graph(queries, vectors, "l2", bf16=True), [queries], None, "bf16")
    # Of lengths of 5.7, rounded vectors leave 0.015 and rounded sums 0.5.
    return float(request.infer([vectors])[0].max()) < 0.1


def _add_length(smallest: Any, queries: Any) -> Any:
    axis = ops.constant(np.array([1]))
    return ops.add(smallest, ops.reduce_sum(ops.multiply(queries, queries), axis, False))


@functools.cache
def _shared_nearest(dims: int, threads: int | None) -> tuple[Any, threading.Lock]:
    """The same for vectors that come as a second input, and the lock that goes with the one request."""
    queries = ops.parameter([-1, dims], np.float32)
    vectors = ops.parameter([-1, dims], np.float32)
    axis = ops.constant(np.array([1]))
    squared = ops.reduce_sum(ops.multiply(vectors, vectors), axis, False)
    doubled = ops.multiply(queries, ops.constant(np.float32(-2)))
    smallest = ops.reduce_min(ops.add(ops.matmul(doubled, vectors, False, True), squared), axis, False)
    return _request(_add_length(smallest, queries), [queries, vectors], threads), threading.Lock()


def _request(output: Any, inputs: list[Any], threads: int | None, precision: str = "f32") -> Any:
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return openvino.Core().compile_model(openvino.Model([output], inputs), "CPU", config).create_infer_request()


@dataclass(frozen=True, eq=False)
class Origin:
    """Where bank vectors come from.

    Attributes:
        image: (n,) int32 index of the support photograph.
        view: (n,) int32 index of the view; 0 is the photograph itself.
        xy: (n, 2) int32 patch centre in the photograph, (x, y) in pixels.
    """

    image: Int32Array
    view: Int32Array
    xy: Int32Array

    def __getitem__(self, index: IndexArray | npt.NDArray[np.bool_]) -> Origin:
        return Origin(self.image[index], self.view[index], self.xy[index])

    @classmethod
    def join(cls, parts: list[Origin]) -> Origin:
        """Concatenate."""
        return cls(
            np.concatenate([p.image for p in parts]),
            np.concatenate([p.view for p in parts]),
            np.concatenate([p.xy for p in parts]),
        )


class MemoryBank:
    """Patch embeddings of good parts with their origins, searched exactly.

    `search` is FAISS, for any number of neighbours and their indices. `nearest`, the inspect path, needs one distance
    a patch and nothing else: a matrix product and a minimum, which OpenVINO does in half the time, on the encoder's
    own threads (FAISS's spin for a while after each call and take the processor from the encoder).

    Args:
        vectors: (n, d) float32 or float16, already `normalise`d.
        origin: Where each comes from.
        metric: `l2` or `cosine`.
        threads: Number of CPU threads of `nearest`; None leaves it to OpenVINO.
        lasting: Whether it will be searched often, see `NearestSearch`.

    Attributes:
        vectors: (n, d) float32, rounded to float16 unless they exceed its range.
        stored_dtype: What the artefact stores them as without a loss.
    """

    def __init__(
        self,
        vectors: Float32Array,
        origin: Origin,
        metric: Metric,
        threads: int | None = None,
        lasting: bool = True,
    ) -> None:
        if len(vectors) == 0:
            raise NotEnrolledError("the memory bank is empty: no patch of the support set was usable. Enroll again.")
        # Rounded to what the artefact stores, so that a product scores the same before and after saving.
        fits = float(np.abs(vectors).max()) < FLOAT16_MAX
        self.stored_dtype = np.dtype(np.float16 if fits else np.float32)
        self.vectors = np.ascontiguousarray(vectors.astype(self.stored_dtype), np.float32)
        self.origin = origin
        self.metric: Metric = metric
        self._threads = threads
        self._lasting = lasting

    @functools.cached_property
    def _nearest(self) -> NearestSearch:
        return NearestSearch(self.vectors, self._threads, self._lasting)

    @functools.cached_property
    def _index(self) -> Any:
        # Imported here: an inspection does without it, and it takes a tenth of a second.
        import faiss

        index = faiss.IndexFlatL2(self.vectors.shape[1])
        index.add(self.vectors)
        return index

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, embeddings: Float32Array, k: int = 1) -> tuple[Float32Array, IndexArray]:
        """The k nearest bank vectors of each embedding.

        Args:
            embeddings: (m, d) float32, already `normalise`d.
            k: Neighbours; no more than the bank holds are returned.

        Returns:
            Distances (m, k) float32 in the bank's metric, ascending, and indices (m, k) int64.
        """
        squared, index = self._index.search(np.ascontiguousarray(embeddings), min(k, len(self)))
        return to_distance(squared, self.metric), index

    def nearest(self, embeddings: Float32Array) -> Float32Array:
        """The distance of each embedding to its nearest bank vector.

        Args:
            embeddings: (m, d) float32, already `normalise`d.

        Returns:
            (m,) float32 in the bank's metric.
        """
        return to_distance(self._nearest(embeddings), self.metric)
