"""A memory bank that takes little memory until it is searched: for many products at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float32Array, IndexArray
from fewshot_ad.search.memory_bank import MemoryBank, Origin
from fewshot_ad.search.nearest import Metric, NearestSearch, to_distance

_NOWHERE = Origin(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 2), np.int32))


class CompactBank(MemoryBank):
    """The same distances from vectors as they are stored, mostly float16: a bank of 1,500 takes 0.5 MB.

    They become float32 for each search (a tenth of a millisecond), in a model that all banks share. Where its vectors
    come from is not kept.

    Args:
        vectors: (n, d) float16 or float32 as they are stored.
        metric: `l2` or `cosine`.
        threads: Number of CPU threads; None leaves it to OpenVINO.
    """

    def __init__(self, vectors: npt.NDArray[Any], metric: Metric, threads: int | None = None) -> None:
        self.stored_dtype = vectors.dtype
        self.origin = _NOWHERE
        self.metric = metric
        self._stored = np.ascontiguousarray(vectors)
        self._threads = threads

    @property
    def vectors(self) -> Float32Array:  # type: ignore[override]
        """(n, d) float32, made anew each time."""
        return self._stored.astype(np.float32)

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return self._stored.nbytes

    def __len__(self) -> int:
        return len(self._stored)

    def search(self, embeddings: Float32Array, k: int = 1) -> tuple[Float32Array, IndexArray]:
        """See `MemoryBank.search`; the index is made for it and not kept."""
        return MemoryBank(self.vectors, _NOWHERE, self.metric, self._threads, lasting=False).search(embeddings, k)

    def nearest(self, embeddings: Float32Array) -> Float32Array:
        """See `MemoryBank.nearest`."""
        return to_distance(NearestSearch(self.vectors, self._threads, lasting=False)(embeddings), self.metric)
