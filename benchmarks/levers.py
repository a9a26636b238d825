"""What each lever of the inspect path brings, one at a time, in turn with the way it replaces.

Working scale 256, EfficientNet-Lite0 with E, on a 1024 x 1024 image in memory (scikit-image's `brick`). Each row
times the two ways alternately, so that a slow minute of the machine hits both; medians of 100. FAISS alone is timed by
itself: its threads spin for a while after each call and would slow whatever comes next. `error` is the largest
difference of a patch distance (of a feature for the encoder), as a share of the largest, or "none".

    python benchmarks/levers.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino
from latency import VIEWS, images
from openvino import opset13 as ops

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.encoder import Encoder
from fewshot_ad.encoder.engine import has_bf16
from fewshot_ad.encoder.weights import encoder_file
from fewshot_ad.images import Geometry
from fewshot_ad.scoring import anomaly_map
from fewshot_ad.search.memory_bank import MemoryBank
from fewshot_ad.search.nearest import NearestSearch
from fewshot_ad.search.one_pass import OnePass

REPEATS = 100


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


def int8_encoder(pictures: list[np.ndarray[Any, Any]], prepared: np.ndarray[Any, Any]) -> Any:
    """The encoder, quantized by NNCF on the support set; None without NNCF."""
    try:
        import nncf
    except ImportError:
        return None
    core = openvino.Core()
    model = core.read_model(encoder_file("lite0_parts"))
    model = openvino.Model([model.output("stage4").node.input_value(0)], model.get_parameters())
    model.reshape(prepared[None].shape)
    geometry = Geometry.fit(pictures[0].shape[:2], 256, 16)  # type: ignore[arg-type]
    data = nncf.Dataset([geometry.to_input(p)[None] for p in pictures])
    quantized = nncf.quantize(model, data, subset_size=len(pictures))
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return core.compile_model(quantized, "CPU", config).create_infer_request()


def row(name: str, old: str, new: str, times: tuple[float, float], error: str = "none") -> None:
    print(f"| {name} | {old} {times[0]:.2f} | {new} {times[1]:.2f} | {times[0] / times[1]:.2f} | {error} |", flush=True)


def half_precision_exact(encoder: Encoder, prepared: np.ndarray[Any, Any], bank: MemoryBank) -> np.ndarray[Any, Any]:
    """Distances of the half-precision encoder's embeddings, searched in float32."""
    embeddings = encoder.encode(prepared)[0]
    return bank.nearest(np.ascontiguousarray(embeddings.reshape(-1, embeddings.shape[2])))


def off(got: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> str:
    return f"{float(np.abs(got - wanted).max() / wanted.max()):.2%}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    pictures = images(9)
    query = pictures[8]
    encoder = load_encoder()
    inspector = Inspector.from_support(pictures[:8], encoder=encoder, views=VIEWS, image_size=256, budget=4000)
    geometry = Geometry.fit(query.shape[:2], 256, 16)  # type: ignore[arg-type]
    prepared = geometry.to_input(query)
    embeddings = encoder.encode(prepared)[0]
    flat = np.ascontiguousarray(embeddings.reshape(-1, embeddings.shape[2]))
    bank = inspector.banks[0]
    exact = bank.nearest(flat)
    print("| lever | before, ms | after, ms | times faster | error |\n|---|---|---|---|---|")
    size = (256, 256)
    times = alternately(lambda: cv2.resize(query, size, interpolation=cv2.INTER_AREA), lambda: geometry.scale(query))
    row("shrinking by exact halves (and a slight blur)", "area", "halves", times, "one gray level")
    one_pass = OnePass(encoder, inspector.banks)
    times = alternately(
        lambda: bank.nearest(encoder.encode(prepared)[0].reshape(-1, flat.shape[1])), lambda: one_pass(prepared)
    )
    row("encoder and search as one graph, 4,000 rows", "two", "one", times, off(one_pass(prepared)[0].ravel(), exact))
    times = median(lambda: bank.search(flat)), median(lambda: bank.nearest(flat))
    row("search by matrix product in OpenVINO", "FAISS flat", "OpenVINO", times, off(bank.search(flat)[0][:, 0], exact))
    half = NearestSearch(bank.vectors[:2000])
    times = alternately(lambda: bank.nearest(flat), lambda: half(flat))
    row("a bank of half the size", "4,000", "2,000", times, "see the board")
    for name, new, settings in (
        ("search over principal axes", "96 of 152", {"precision": "f32", "dims": 96}),
        ("search over principal axes", "64 of 152", {"precision": "f32", "dims": 64}),
        ("index of the nearest as well", "with index", {"precision": "f32", "index": True}),
        ("search in bfloat16", "bf16", {"precision": "bf16"}),
    ):
        if settings["precision"] == "bf16" and not has_bf16():
            continue
        request = search(bank.vectors, **settings)  # type: ignore[arg-type]
        times = alternately(lambda: bank.nearest(flat), lambda: request.infer([flat]))  # noqa: B023
        row(name, "as it is", new, times, off(request.infer([flat])[0], exact))
    if has_bf16():
        half_precision = load_encoder(precision="bf16")
        times = alternately(lambda: encoder.encode(prepared), lambda: half_precision.encode(prepared))
        row("encoder in bfloat16", "f32", "bf16", times, off(half_precision.encode(prepared)[0], embeddings))
        halves = OnePass(half_precision, inspector.banks)
        times = alternately(lambda: one_pass(prepared), lambda: halves(prepared))
        error = off(halves(prepared)[0].ravel(), half_precision_exact(half_precision, prepared, bank))
        row("encoder and search in bfloat16, one graph", "f32", "bf16", times, f"{error} of the search")
    int8 = int8_encoder(pictures[:8], prepared)
    if int8 is None:
        print("| encoder in int8 | NNCF is not installed | | | |")
    else:
        times = alternately(lambda: encoder.encode(prepared), lambda: int8.infer([prepared[None]]))
        row("encoder in int8 (NNCF)", "f32", "int8", times, off(int8.infer([prepared[None]])[0][0], embeddings))
    grids, spread = one_pass(prepared), inspector.scoring.sigma
    times = alternately(
        lambda: cv2.GaussianBlur(cv2.resize(grids[0], size), (0, 0), spread),
        lambda: anomaly_map(grids, geometry, spread, 256),
    )
    row("enlarging and smoothing as matrices", "one after the other", "matrices", times)
    result = inspector.inspect(query)
    times = alternately(
        lambda: cv2.resize(result.working_map, (1024, 1024), interpolation=cv2.INTER_LINEAR), lambda: result.working_map
    )
    row("full-size map only when read", "always", "when read", times)
    single = load_encoder(threads=1)
    row(
        "both cores for the encoder",
        "1 thread",
        "all",
        alternately(lambda: single.encode(prepared), lambda: encoder.encode(prepared)),
    )
    torch_busy()


BUSY = """
import sys, time
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from latency import VIEWS, images
from fewshot_ad import Inspector
pictures = images(3)
inspector = Inspector.from_support(pictures[:2], views=VIEWS, image_size=256)
matrix, times = torch.rand(600, 600), []
for _ in range(120):
    if sys.argv[2] == "busy":
        matrix @ matrix
    start = time.perf_counter()
    inspector.inspect(pictures[2])
    times.append((time.perf_counter() - start) * 1e3)
print(np.median(times[20:]))
"""


def torch_busy() -> None:
    """Inspections in a process whose OpenMP threads have just worked for torch; they go on spinning for a while."""

    def milliseconds(how: str, **environment: str) -> float:
        command = [sys.executable, "-c", BUSY, str(Path(__file__).parent), how]
        run = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        return float(run.stdout) if run.returncode == 0 else float("nan")

    alone = milliseconds("alone")
    for name, environment in (("", {}), (", OMP_WAIT_POLICY=PASSIVE", {"OMP_WAIT_POLICY": "PASSIVE"})):
        row(
            "inspection right after a torch product" + name,
            "alone",
            "after",
            (alone, milliseconds("busy", **environment)),
        )


if __name__ == "__main__":
    main()
