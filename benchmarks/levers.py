"""What each lever of the inspect path brings, one at a time, in turn with the way it replaces.

Working scale 256, EfficientNet-Lite0 with E, on a 1024 x 1024 image in memory (scikit-image's `brick`). Each row
times the two ways alternately, so that a slow minute of the machine hits both; medians of 100. FAISS alone is timed by
itself: its threads spin for a while after each call and would slow whatever comes next. `error` is the largest
difference of a patch distance (of a feature for the encoder), as a share of the largest, or "none".

    python benchmarks/levers.py
    python benchmarks/levers.py --record    # and put the figures on record
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import measured_tables
import measurements
import numpy as np
import openvino
from latency import VIEWS, images
from openvino import opset13 as ops

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.encoder.engine import has_bf16
from fewshot_ad.encoder.weights import encoder_file
from fewshot_ad.images import Geometry
from fewshot_ad.scoring import anomaly_map
from fewshot_ad.search.nearest import NearestSearch
from fewshot_ad.search.one_pass import OnePass

REPEATS = 100
SIZE = (256, 256)
Row: TypeAlias = dict[str, Any]


def median(call: Callable[[], Any]) -> float:
    """Milliseconds, by itself."""
    times = []
    for _ in range(REPEATS + 10):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times[10:]))


def alternately(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[float, float]:
    """Median milliseconds of both."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (first, second):
        for _ in range(10):
            call()
    for _ in range(REPEATS):
        for call, series in zip((first, second), times, strict=True):
            start = time.perf_counter()
            call()
            series.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times[0])), float(np.median(times[1]))


def search(vectors: np.ndarray[Any, Any], precision: str, dims: int | None = None, index: bool = False) -> Any:
    """A search like `NearestSearch`, but in another precision, over principal axes only, or for the index."""
    mean = vectors.mean(axis=0)
    b = vectors - mean
    queries = ops.parameter([-1, vectors.shape[1]], np.float32)
    q = ops.subtract(queries, ops.constant(mean[None]))
    if dims is not None:
        axes = np.ascontiguousarray(np.linalg.eigh(b.T @ b)[1][:, ::-1][:, :dims], np.float32)
        q, b = ops.matmul(q, ops.constant(axes), False, False), b @ axes
    axis, smallest = ops.constant(np.array([1])), None
    for block in np.array_split(b, 1 if index else max(1, len(b) // 1000)):
        product = ops.matmul(q, ops.constant(np.ascontiguousarray(-2 * block)), False, True)
        squared = ops.add(product, ops.constant((block**2).sum(1)[None].astype(np.float32)))
        if index:
            smallest = ops.topk(squared, ops.constant(1), 1, "min", "none", index_element_type="i32").output(0)
            smallest = ops.squeeze(smallest, axis)
        else:
            least = ops.reduce_min(squared, axis, False)
            smallest = least if smallest is None else ops.minimum(smallest, least)
    squared = ops.add(smallest, ops.reduce_sum(ops.multiply(q, q), axis, False))
    root = ops.sqrt(ops.maximum(squared, ops.constant(np.float32(0))))
    config = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(openvino.Model([root], [queries]), "CPU", config).create_infer_request()


def int8_encoder(support: list[np.ndarray[Any, Any]], prepared: np.ndarray[Any, Any]) -> Any:
    """The encoder, quantized by NNCF on the support set; None without NNCF."""
    try:
        import nncf
    except ImportError:
        return None
    core = openvino.Core()
    model = core.read_model(encoder_file("lite0_parts"))
    model = openvino.Model([model.output("stage4").node.input_value(0)], model.get_parameters())
    model.reshape(prepared[None].shape)
    geometry = Geometry.fit(support[0].shape[:2], 256, 16)  # type: ignore[arg-type]
    data = nncf.Dataset([geometry.to_input(image)[None] for image in support])
    quantized = nncf.quantize(model, data, subset_size=len(support))
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return core.compile_model(quantized, "CPU", config).create_infer_request()


def row(lever: str, before: str, after: str, times: tuple[float, float], error: str = "none") -> Row:
    """One row of the table: what a lever replaces and what it brings, in milliseconds."""
    return {
        "lever": lever,
        "before": before,
        "before_ms": times[0],
        "after": after,
        "after_ms": times[1],
        "times": times[0] / times[1],
        "error": error,
    }


def off(values: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> str:
    """The largest difference, as a share of the largest exact value."""
    return f"{float(np.abs(values - exact).max() / exact.max()):.2%}"


@dataclass(frozen=True)
class Bench:
    """What all levers are tried on.

    Attributes:
        support: Eight images, (1024, 1024, 3) uint8 RGB.
        query: One more of them.
        inspector: Enrolled from the support images, with a bank of 4,000 vectors.
        geometry: From an image to the working scale.
        prepared: The query at working scale.
        embeddings: The query's patch embeddings, (h, w, d) float32.
        exact: Distances of the query's patches in float32.
    """

    support: list[np.ndarray[Any, Any]]
    query: np.ndarray[Any, Any]
    inspector: Inspector
    geometry: Geometry
    prepared: np.ndarray[Any, Any]
    embeddings: np.ndarray[Any, Any]
    exact: np.ndarray[Any, Any]

    @classmethod
    def create(cls) -> Bench:
        """Enroll."""
        *support, query = images(9)
        inspector = Inspector.from_support(support, views=VIEWS, image_size=256, budget=4000)
        geometry = Geometry.fit(query.shape[:2], 256, 16)  # type: ignore[arg-type]
        prepared = geometry.to_input(query)
        embeddings = inspector.encoder.encode(prepared)[0]
        exact = inspector.banks[0].nearest(flat(embeddings))
        return cls(support, query, inspector, geometry, prepared, embeddings, exact)


def flat(embeddings: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(h, w, d) -> (h * w, d), contiguous."""
    return np.ascontiguousarray(embeddings.reshape(-1, embeddings.shape[2]))


def search_levers(bench: Bench) -> Iterator[Row]:
    """Shrinking, one graph, and other ways to search."""
    encoder, bank, prepared, exact = bench.inspector.encoder, bench.inspector.banks[0], bench.prepared, bench.exact
    area = functools.partial(cv2.resize, bench.query, SIZE, interpolation=cv2.INTER_AREA)
    times = alternately(area, lambda: bench.geometry.scale(bench.query))
    yield row("shrinking by exact halves (and a slight blur)", "area", "halves", times, "one gray level")
    one_pass = OnePass(encoder, bench.inspector.banks)
    times = alternately(lambda: bank.nearest(flat(encoder.encode(prepared)[0])), lambda: one_pass(prepared))
    error = off(one_pass(prepared)[0].ravel(), exact)
    yield row("encoder and search as one graph, 4,000 rows", "two", "one", times, error)
    queries = flat(bench.embeddings)
    times = median(lambda: bank.search(queries)), median(lambda: bank.nearest(queries))
    error = off(bank.search(queries)[0][:, 0], exact)
    yield row("search by matrix product in OpenVINO", "FAISS flat", "OpenVINO", times, error)
    half = NearestSearch(bank.vectors[:2000])
    times = alternately(lambda: bank.nearest(queries), lambda: half(queries))
    yield row("a bank of half the size", "4,000", "2,000", times, "see the board")
    for name, after, settings in (
        ("search over principal axes", "96 of 152", {"precision": "f32", "dims": 96}),
        ("search over principal axes", "64 of 152", {"precision": "f32", "dims": 64}),
        ("index of the nearest as well", "with index", {"precision": "f32", "index": True}),
        ("search in bfloat16", "bf16", {"precision": "bf16"}),
    ):
        if settings["precision"] == "bf16" and not has_bf16():
            continue
        request = search(bank.vectors, **settings)  # type: ignore[arg-type]
        times = alternately(lambda: bank.nearest(queries), lambda: request.infer([queries]))  # noqa: B023
        yield row(name, "as it is", after, times, off(request.infer([queries])[0], exact))


def precision_levers(bench: Bench) -> Iterator[Row]:
    """bfloat16 where the processor has it, int8 where NNCF is installed."""
    encoder, prepared = bench.inspector.encoder, bench.prepared
    if has_bf16():
        one_pass = OnePass(encoder, bench.inspector.banks)
        half_precision = load_encoder(precision="bf16")
        times = alternately(lambda: encoder.encode(prepared), lambda: half_precision.encode(prepared))
        error = off(half_precision.encode(prepared)[0], bench.embeddings)
        yield row("encoder in bfloat16", "f32", "bf16", times, error)
        halves = OnePass(half_precision, bench.inspector.banks)
        times = alternately(lambda: one_pass(prepared), lambda: halves(prepared))
        # Against the half-precision encoder's embeddings searched in float32, so that the search alone differs.
        exact = bench.inspector.banks[0].nearest(flat(half_precision.encode(prepared)[0]))
        error = f"{off(halves(prepared)[0].ravel(), exact)} of the search"
        yield row("encoder and search in bfloat16, one graph", "f32", "bf16", times, error)
    int8 = int8_encoder(bench.support, prepared)
    if int8 is None:
        print("encoder in int8 left out: NNCF is not installed")
        return
    times = alternately(lambda: encoder.encode(prepared), lambda: int8.infer([prepared[None]]))
    error = off(int8.infer([prepared[None]])[0][0], bench.embeddings)
    yield row("encoder in int8 (NNCF)", "f32", "int8", times, error)


def map_levers(bench: Bench) -> Iterator[Row]:
    """What comes after the search, and the encoder's threads."""
    grids, sigma = (
        OnePass(bench.inspector.encoder, bench.inspector.banks)(bench.prepared),
        bench.inspector.scoring.sigma,
    )
    times = alternately(
        lambda: cv2.GaussianBlur(cv2.resize(grids[0], SIZE), (0, 0), sigma),
        lambda: anomaly_map(grids, bench.geometry, sigma, 256),
    )
    yield row("enlarging and smoothing as matrices", "one after the other", "matrices", times)
    result = bench.inspector.inspect(bench.query)
    enlarge = functools.partial(cv2.resize, result.working_map, (1024, 1024), interpolation=cv2.INTER_LINEAR)
    yield row("full-size map only when read", "always", "when read", alternately(enlarge, lambda: result.working_map))
    single = load_encoder(threads=1)
    times = alternately(lambda: single.encode(bench.prepared), lambda: bench.inspector.encoder.encode(bench.prepared))
    yield row("both cores for the encoder", "1 thread", "all", times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements.add_record_option(parser)
    args = parser.parse_args()
    bench = Bench.create()
    rows = [*search_levers(bench), *precision_levers(bench), *map_levers(bench), *torch_busy()]
    measured_tables.finish("levers", rows, args.record)


BUSY = """
import sys, time
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from latency import VIEWS, images
from fewshot_ad import Inspector
*support, query = images(3)
inspector = Inspector.from_support(support, views=VIEWS, image_size=256)
matrix, times = torch.rand(600, 600), []
for _ in range(120):
    if sys.argv[2] == "busy":
        matrix @ matrix
    start = time.perf_counter()
    inspector.inspect(query)
    times.append((time.perf_counter() - start) * 1e3)
print(np.median(times[20:]))
"""


def torch_busy() -> Iterator[Row]:
    """Inspections in a process whose OpenMP threads have just worked for torch; they go on spinning for a while."""

    def milliseconds(how: str, **environment: str) -> float:
        command = [sys.executable, "-c", BUSY, str(Path(__file__).parent), how]
        run = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        return float(run.stdout) if run.returncode == 0 else float("nan")

    alone = milliseconds("alone")
    for suffix, environment in (("", {}), (", OMP_WAIT_POLICY=PASSIVE", {"OMP_WAIT_POLICY": "PASSIVE"})):
        times = (alone, milliseconds("busy", **environment))
        yield row(f"inspection right after a torch product{suffix}", "alone", "after", times)


if __name__ == "__main__":
    main()
