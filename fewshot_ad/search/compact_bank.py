"""A memory bank that takes little memory until it is searched: for many products at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float32Array, IndexArray
from fewshot_ad.search.memory_bank import MemoryBank, Origin
from fewshot_ad.search.nearest import Metric, NearestSearch, to_distance

_NOWHERE = Origin(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 2), np.int32))
# Values of a dimension are told apart in so many steps from its smallest to its largest.
STEPS = 255


class CompactBank(MemoryBank):
    """The same distances, or nearly so, from vectors in little memory: a bank of 1,500 takes a quarter of a megabyte.

    Each value has 8 bits, from the smallest to the largest of its dimension; a distance is then off by 1e-3 or 2e-3
    of it. Or the vectors stay as they are stored, mostly float16, and nothing is off. Either way they become
    float32 for each search (a tenth of a millisecond), in a model that all banks share. Where they come from is not
    kept.

    Args:
        vectors: (n, d) float16 or float32 as they are stored.
        metric: `l2` or `cosine`.
        threads: Number of CPU threads; None leaves it to OpenVINO.
        exact: Whether the vectors stay as they are stored.
    """

    def __init__(
        self, vectors: npt.NDArray[Any], metric: Metric, threads: int | None = None, *, exact: bool = False
    ) -> None:
        self.stored_dtype = vectors.dtype
        self.origin = _NOWHERE
        self.metric = metric
        self._threads = threads
        # One row each: what is added to the values, and what they are multiplied with.
        self._low: Float32Array | None = None
        self._step: Float32Array | None = None
        if exact:
            self._stored: npt.NDArray[Any] = np.array(vectors, order="C")
            return
        values = vectors.astype(np.float32)
        low = values.min(axis=0, keepdims=True)
        step = (values.max(axis=0, keepdims=True) - low) / np.float32(STEPS)
        self._low, self._step = low, step
        self._stored = np.rint((values - low) / np.where(step > 0, step, 1)).astype(np.uint8)

    @property
    def vectors(self) -> Float32Array:  # type: ignore[override]
        """(n, d) float32, made anew each time."""
        values = self._stored.astype(np.float32)
        if self._low is None or self._step is None:
            return values
        values *= self._step
        values += self._low
        return values

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return self._stored.nbytes + sum(row.nbytes for row in (self._low, self._step) if row is not None)

    def __len__(self) -> int:
        return len(self._stored)

    def search(self, embeddings: Float32Array, k: int = 1) -> tuple[Float32Array, IndexArray]:
        """See `MemoryBank.search`; the index is made for it and not kept."""
        return MemoryBank(self.vectors, _NOWHERE, self.metric, self._threads, lasting=False).search(embeddings, k)

    def nearest(self, embeddings: Float32Array) -> Float32Array:
        """See `MemoryBank.nearest`."""
        return to_distance(NearestSearch(self.vectors, self._threads, lasting=False)(embeddings), self.metric)
