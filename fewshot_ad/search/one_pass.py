"""Encoder and search of the memory banks as one OpenVINO graph: image in, patch distances out."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.encoder.engine import OpenVINOEngine
from fewshot_ad.encoder.requests import MAX_FIXED_SIZES, Requests
from fewshot_ad.host.runtimes import import_openvino
from fewshot_ad.search.memory_bank import MemoryBank
from fewshot_ad.search.nearest import Metric, nearest_graph, search_tables, searches_in_bf16

openvino = import_openvino()
ops = openvino.opset13

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchGraph:
    """An encoder with the search of banks behind it, whatever is in them.

    Attributes:
        engine: The encoder's; held weakly, since it holds what is compiled.
        metrics: Of each bank.
        shapes: Of each bank, those of its `search_tables`.
        bf16: Whether the graph will be compiled in bfloat16.
    """

    engine: weakref.ref[OpenVINOEngine]
    metrics: tuple[Metric, ...]
    shapes: tuple[tuple[tuple[int, ...], ...], ...]
    bf16: bool

    def __call__(self) -> Any:
        """The OpenVINO model: `photograph` (N, H, W, 3) uint8, N = 1, and tables -> (h, w) float32 per level."""
        engine = self.engine()
        if engine is None:
            raise ReferenceError("the encoder of this search is gone")
        encoder = engine.graph()
        score_maps, inputs = [], encoder.get_parameters()
        for at, (metric, shapes) in enumerate(zip(self.metrics, self.shapes, strict=True)):
            level = encoder.output(at).node.input_value(0)
            tables = [ops.parameter(list(shape), np.float32) for shape in shapes]
            flat = ops.reshape(level, ops.constant(np.array([-1, shapes[0][1]])), False)
            distances = nearest_graph(flat, tables, metric, self.bf16)
            grid_hw = ops.slice(ops.shape_of(level), *(ops.constant(np.array([n])) for n in (1, 3, 1)))
            score_maps.append(ops.reshape(distances, grid_hw, False))
            inputs += tables
        return openvino.Model(score_maps, inputs)


class OnePass:
    """What `Encoder.encode` and `MemoryBank.nearest` do one after the other, without going back and forth.

    Two compiled models in turn hand each other the processor, which costs nearly a millisecond per inspection
    (`benchmarks/levers.py`). The vectors are inputs of the graph: what is compiled for a size of images serves all
    products of an encoder whose banks have as many of them, and one that changes is not compiled anew. The scores are
    the same up to rounding: to 1e-3 of the distances in float32; in bfloat16 to 2^-9 of the embeddings' lengths, see
    `nearest.search_tables`.

    Args:
        encoder: An encoder on OpenVINO, see `OnePass.fits`.
        banks: One memory bank per level.
    """

    def __init__(self, encoder: Encoder, banks: Sequence[MemoryBank]) -> None:
        engine = encoder.engine
        if not isinstance(engine, OpenVINOEngine):
            raise TypeError(f"expected an encoder on OpenVINO, got one on {encoder.engine_name}")
        self._encoder = encoder
        bf16 = encoder.spec.precision == "bf16"
        tables = [[np.ascontiguousarray(t) for t in search_tables(bank.vectors, bf16)] for bank in banks]
        self._graph = SearchGraph(
            weakref.ref(engine),
            tuple(bank.metric for bank in banks),
            tuple(tuple(table.shape for table in of_bank) for of_bank in tables),
            bf16,
        )
        self._requests = Requests(
            self._graph,
            engine.config,
            [table for of_bank in tables for table in of_bank],
            engine.searches,
            (self._graph.metrics, self._graph.shapes),
        )
        self._size_noted = False

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes (1, H, W, 3) of the inputs, or of the tiles of large ones, that it has been compiled for."""
        return self._requests.sizes

    def compile(self, sizes: Sequence[tuple[int, ...]]) -> None:
        """Do now what the first input of each size would wait for."""
        for _, *input_hw, _ in sizes:
            tiling = self._encoder.tiling((input_hw[0], input_hw[1]))
            height, width = input_hw if tiling is None else tiling.tile_hw
            if self._requests.ready((1, height, width, 3)):
                # The first run takes longer, too.
                self._requests.infer(np.zeros((1, height, width, 3), np.uint8))

    @staticmethod
    def fits(encoder: Encoder) -> bool:
        """Whether an encoder can be part of such a graph."""
        engine = encoder.engine
        if not (isinstance(engine, OpenVINOEngine) and engine.makes_levels):
            return False
        return encoder.spec.precision == "f32" or searches_in_bf16()

    def __call__(self, image: Uint8Array) -> tuple[Float32Array, ...]:
        """Distances of the patches of one input, a large one in tiles.

        Args:
            image: (H, W, 3) uint8 RGB, H and W multiples of the encoder's.

        Returns:
            One array (h, w) float32 per level, in the bank's metric.

        Raises:
            WeightsError: As for `Encoder.tiling`.
        """
        tiling = self._encoder.tiling(image.shape[:2])  # type: ignore[arg-type]
        return self._distances(image) if tiling is None else tiling.run(image, self._distances)

    def _distances(self, image: Uint8Array) -> tuple[Float32Array, ...]:
        batch, start = image[None], time.perf_counter()
        if self._requests.ready(batch.shape):
            self._note_new_size(image.shape[1], image.shape[0], time.perf_counter() - start)
        return tuple(self._requests.infer(batch))

    def _note_new_size(self, width: int, height: int, seconds: float) -> None:
        """The first size has to be compiled for, a further one surprises; that is said once."""
        text = (
            f"the network was compiled for inputs of {width} x {height} pixels, {seconds:.1f} s, as it is for the "
            "first image of each size. warm_up((height, width)), or inspect --warm-up, does that beforehand"
        )
        if len(self._requests.sizes) == 1:
            logger.info("%s.", text)
        elif not self._size_noted:
            self._size_noted = True
            logger.warning(
                "images of several sizes: %s. More than %d sizes share one network, which is slower.",
                text,
                MAX_FIXED_SIZES,
            )
