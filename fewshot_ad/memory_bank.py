"""Coreset and kNN: the patch embeddings of good parts, thinned, and how far a new patch is from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from fewshot_ad.errors import NotEnrolledError
from fewshot_ad.images import Float32Array

Metric: TypeAlias = Literal["l2", "cosine"]
METRICS: tuple[Metric, ...] = ("l2", "cosine")
Int32Array: TypeAlias = npt.NDArray[np.int32]
IndexArray: TypeAlias = npt.NDArray[np.int64]
Progress: TypeAlias = Callable[[str, int, int], None]

JL_DIMS = 64
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
) -> IndexArray:
    """Greedy k-centre: pick, again and again, the embedding farthest from all picked so far.

    Exact (on the projected embeddings) and deterministic. A pick can only change the nearest centre of points whose
    own centre is closer to the new one than twice their distance to it (triangle inequality); only those are
    measured, which on patch embeddings is a few per cent.

    Args:
        embeddings: (n, d) float32.
        budget: How many to pick; fewer are returned if n is smaller or the rest are exact repeats.
        seed: Of the projection.
        progress: Called as `progress("coreset", done, budget)` every few hundred picks.

    Returns:
        Indices (k,) int64 in the order picked; the first is the embedding farthest from the mean.

    Source: Roth et al. 2022 (PatchCore), algorithm 1; pruning after Elkan 2003.
    """
    n = len(embeddings)
    if n <= budget:
        return np.arange(n, dtype=np.int64)
    points = jl_projection(embeddings, seed)
    picked = np.empty(budget, np.int64)
    centres = np.empty((budget, points.shape[1]), np.float32)
    first = int(np.argmax(_squared(points, points.mean(axis=0))))
    picked[0], centres[0] = first, points[first]
    nearest = _squared(points, points[first])
    owner = np.zeros(n, np.int32)
    for k in range(1, budget):
        pick = int(np.argmax(nearest))
        if nearest[pick] == 0:
            return picked[:k]
        point = points[pick]
        # d(owner, point) >= 2 d(x, owner) implies d(x, point) >= d(x, owner). The margin covers rounding.
        reach = _squared(centres[:k], point) * np.float32(0.2499)
        near = np.flatnonzero(reach[owner] < nearest)
        distance = _squared(points[near], point)
        closer = distance < nearest[near]
        changed = near[closer]
        nearest[changed] = distance[closer]
        owner[changed] = k
        picked[k], centres[k] = pick, point
        if progress is not None and k % 250 == 0:
            progress("coreset", k, budget)
    if progress is not None:
        progress("coreset", budget, budget)
    return picked


def _squared(points: Float32Array, point: Float32Array) -> Float32Array:
    difference = points - point
    return np.einsum("ij,ij->i", difference, difference)


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


@dataclass(frozen=True)
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
    """Patch embeddings of good parts with their origins, searchable exactly by FAISS.

    Args:
        vectors: (n, d) float32 or float16, already `normalise`d.
        origin: Where each comes from.
        metric: `l2` or `cosine`.

    Attributes:
        vectors: (n, d) float32, rounded to float16 unless they exceed its range.
        stored_dtype: What the artefact stores them as without a loss.
    """

    def __init__(self, vectors: Float32Array, origin: Origin, metric: Metric) -> None:
        if len(vectors) == 0:
            raise NotEnrolledError("the memory bank is empty: no patch of the support set was usable. Enroll again.")
        # Rounded to what the artefact stores, so that a product scores the same before and after saving.
        fits = float(np.abs(vectors).max()) < FLOAT16_MAX
        self.stored_dtype = np.dtype(np.float16 if fits else np.float32)
        self.vectors = np.ascontiguousarray(vectors.astype(self.stored_dtype), np.float32)
        self.origin = origin
        self.metric: Metric = metric
        self._index = faiss.IndexFlatL2(self.vectors.shape[1])
        self._index.add(self.vectors)

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
