"""Coreset and kNN: the patch embeddings of good parts, thinned, and how far a new patch is from them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float32Array, IndexArray, Int32Array, Progress
from fewshot_ad.errors import NotEnrolledError
from fewshot_ad.host.lifetime import is_forked
from fewshot_ad.search.nearest import Metric, NearestSearch, to_distance

JL_DIMS = 128
WINDOW = 2048
FLOAT16_MAX = 6e4


class MemoryBank:
    """Patch embeddings of good parts with their origins, searched exactly.

    `search` is FAISS, for any number of neighbors and their indices. `nearest`, the inspect path, needs one distance
    per patch and nothing else: a matrix product and a minimum, which OpenVINO does in half the time, on the encoder's
    own threads (FAISS's spin for a while after each call and take the processor from the encoder).

    Args:
        vectors: (n, d) float32 or float16, already `normalize`d.
        origin: Where each comes from.
        metric: `l2` or `cosine`.
        threads: Number of CPU threads of `nearest`; None leaves it to OpenVINO.
        lasting: Whether it will be searched often, see `NearestSearch`.

    Attributes:
        vectors: (n, d) float32, rounded to float16 unless they exceed its range.
        stored_dtype: What the artifact stores them as without a loss.
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
        # Rounded to what the artifact stores, so that a product scores the same before and after saving.
        self.stored_dtype = stored_dtype(vectors)
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
            embeddings: (m, d) float32, already `normalize`d.
            k: Neighbors; no more than the bank holds are returned.

        Returns:
            Distances (m, k) float32 in the bank's metric, ascending, and indices (m, k) int64.
        """
        with _faiss_threads():
            squared, index = self._index.search(np.ascontiguousarray(embeddings), min(k, len(self)))
        return to_distance(squared, self.metric), index

    def nearest(self, embeddings: Float32Array) -> Float32Array:
        """The distance of each embedding to its nearest bank vector.

        Args:
            embeddings: (m, d) float32, already `normalize`d.

        Returns:
            (m,) float32 in the bank's metric.
        """
        return to_distance(self._nearest(embeddings), self.metric)


def stored_dtype(vectors: Float32Array) -> np.dtype[Any]:
    """What embeddings (n, d), n at least 1, are stored as: float16 unless they exceed its range."""
    return np.dtype(np.float16 if float(np.abs(vectors).max()) < FLOAT16_MAX else np.float32)


@contextmanager
def _faiss_threads() -> Iterator[None]:
    """One thread in a forked child: the parent's are gone there, and FAISS would wait for them forever."""
    if not is_forked():
        yield
        return
    import faiss

    # OpenMP keeps this number by thread, so nobody else sees the change.
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@dataclass(frozen=True, eq=False)
class Origin:
    """Where bank vectors come from.

    Attributes:
        image: (n,) int32 index of the support image.
        view: (n,) int32 index of the view; 0 is the image itself.
        xy: (n, 2) int32 patch center in the image, (x, y) in pixels.
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


def greedy_coreset(
    embeddings: Float32Array,
    budget: int,
    seed: int = 0,
    progress: Progress | None = None,
    threads: int | None = None,
) -> IndexArray:
    """Greedy k-center: pick, again and again, the embedding farthest from all picked so far.

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
    coreset = np.empty(budget, np.int64)
    coreset[0] = int(np.argmax(np.einsum("ij,ij->i", offset, offset)))
    nearest = np.full(n, np.inf, np.float32)
    done, count = 0, 1
    while count < budget:
        np.minimum(nearest, NearestSearch(points[coreset[done:count]], threads, lasting=False)(points), out=nearest)
        nearest[coreset[:count]] = 0
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
                return coreset[:count]
            coreset[count] = window[at]
            count += 1
            distance = near_squared + near_squared[at] - 2 * (near @ near[at])
            np.minimum(bound, distance, out=bound)
            bound[at] = 0
    if progress is not None:
        progress("coreset", budget, budget)
    return coreset


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


def nearest_of_others(embeddings: Float32Array, coreset: IndexArray, groups: Int32Array) -> IndexArray:
    """For each picked embedding, the nearest one of another group.

    Args:
        embeddings: (n, d) float32.
        coreset: (k,) int64 indices into them.
        groups: (n,) int32 group of each embedding, at least two different ones.

    Returns:
        (k,) int64 indices into the embeddings.
    """
    squared = np.einsum("ij,ij->i", embeddings, embeddings)
    smallest = np.full(len(coreset), np.inf, np.float32)
    nearest = np.zeros(len(coreset), np.int64)
    for group in np.unique(groups):
        members, others = np.flatnonzero(groups == group), np.flatnonzero(groups[coreset] != group)
        queries = -2 * embeddings[coreset[others]]
        # Tiles of some megabytes stay in the processor's cache.
        for start in range(0, len(members), 1024):
            rows = members[start : start + 1024]
            tile = queries @ embeddings[rows].T
            tile += squared[rows]
            at = tile.argmin(axis=1)
            value = tile[np.arange(len(tile)), at]
            better = value < smallest[others]
            smallest[others[better]] = value[better]
            nearest[others[better]] = rows[at[better]]
    return nearest
