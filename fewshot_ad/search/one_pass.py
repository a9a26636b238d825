"""Encoder and search of the memory banks as one OpenVINO graph: image in, patch distances out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.encoder.engine import OpenVINOEngine, Requests
from fewshot_ad.search.memory_bank import MemoryBank
from fewshot_ad.search.nearest import nearest_graph, searches_in_bf16


class OnePass:
    """What `Encoder.encode` and `MemoryBank.nearest` do one after the other, without going back and forth.

    Two compiled models in turn hand each other the processor, which costs nearly a millisecond per inspection
    (`benchmarks/levers.py`). The scores are the same up to rounding: to 1e-3 of the distances in
    float32; in bfloat16 to 2^-9 of the embeddings' lengths, see `nearest.nearest_graph`.

    Args:
        encoder: An encoder on OpenVINO, see `OnePass.fits`.
        banks: One memory bank per level.
    """

    def __init__(self, encoder: Encoder, banks: Sequence[MemoryBank]) -> None:
        engine = encoder.engine
        if not isinstance(engine, OpenVINOEngine):
            raise TypeError(f"expected an encoder on OpenVINO, got one on {encoder.engine_name}")
        self._engine = engine
        self._bf16 = encoder.spec.precision == "bf16"
        self._banks = tuple(banks)
        self._requests = Requests(self.graph, engine.config)

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes (1, H, W, 3) of the inputs it has been compiled for."""
        return self._requests.sizes

    def compile(self, sizes: Sequence[tuple[int, ...]]) -> None:
        """Do now what the first input of each size would wait for."""
        for size in sizes:
            self._requests.infer(np.zeros(size, np.uint8))

    @staticmethod
    def fits(encoder: Encoder) -> bool:
        """Whether an encoder can be part of such a graph."""
        engine = encoder.engine
        if not (isinstance(engine, OpenVINOEngine) and engine.makes_levels):
            return False
        return encoder.spec.precision == "f32" or searches_in_bf16()

    def graph(self) -> Any:
        """The OpenVINO model: `photograph` (N, H, W, 3) uint8 -> (h, w) float32 distances per level; N is 1."""
        encoder = self._engine.graph()
        score_maps = []
        for at, bank in enumerate(self._banks):
            level = encoder.output(at).node.input_value(0)
            flat = ops.reshape(level, ops.constant(np.array([-1, bank.vectors.shape[1]])), False)
            distances = nearest_graph(flat, bank.vectors, bank.metric, self._bf16)
            grid_hw = ops.slice(ops.shape_of(level), *(ops.constant(np.array([n])) for n in (1, 3, 1)))
            score_maps.append(ops.reshape(distances, grid_hw, False))
        return openvino.Model(score_maps, encoder.get_parameters())

    def __call__(self, image: Uint8Array) -> tuple[Float32Array, ...]:
        """Distances of the patches of one input.

        Args:
            image: (H, W, 3) uint8 RGB, H and W multiples of the encoder's.

        Returns:
            One array (h, w) float32 per level, in the bank's metric.
        """
        return tuple(self._requests.infer(image[None]))
