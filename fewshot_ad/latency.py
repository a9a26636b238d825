"""Measures how long inspections of a product take on this machine, and whether that changes over time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from fewshot_ad.arguments import number
from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.inspector import Inspector

WARM_UPS = 10
WINDOW_SECONDS = 60.0
MIN_INSPECTIONS = 200


def own_images(inspector: Inspector) -> list[Uint8Array]:
    """The support images stored in a product, (H, W, 3) uint8 each, enlarged to their original size.

    Raises:
        ImageError: The product holds no support image, or images of single parts alone.
    """
    if inspector.model.parts is not None:
        raise ImageError(
            "expected whole support images inside this product, found those of single parts. Give images with --images."
        )
    if not inspector.references:
        raise ImageError("expected support images inside this product, found none. Give images with --images.")
    return [cv2.resize(r.content, r.image_hw[::-1], interpolation=cv2.INTER_LINEAR) for r in inspector.references]


def bench(
    inspector: Inspector,
    images: Sequence[Uint8Array],
    seconds: float = 0.0,
    window: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Inspect decoded images in turn, each to a verdict with a full-size map.

    Args:
        inspector: The product.
        images: (H, W, 3) uint8 RGB.
        seconds: Duration of the measurement; it goes on until at least `MIN_INSPECTIONS` inspections are done.
        window: Called at the end of each minute with the percentiles of that minute.

    Returns:
        Milliseconds: `first` (the first inspection, which compiles the network), `p50`, `p95`, `p99`, `max`, and the
        median of each stage (`stages`). Further the number of `inspections`, inspections `per_second`, and the
        percentiles of each minute (`windows`).

    Raises:
        ArgumentError: The duration is no finite number, or negative.
        ImageError: There is no image.
    """
    seconds = number(seconds, "seconds", 0)
    if not images:
        raise ImageError("expected at least one image to inspect, got none.")
    start = time.perf_counter()
    inspector.inspect(images[0])
    first = (time.perf_counter() - start) * 1e3
    for i in range(WARM_UPS):
        inspector.inspect(images[i % len(images)])
    times: list[float] = []
    stages: dict[str, list[float]] = {}
    windows: list[dict[str, float]] = []
    begin, window_start = time.perf_counter(), 0
    while len(times) < MIN_INSPECTIONS or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        result = inspector.inspect(images[len(times) % len(images)])
        result.anomaly_map  # noqa: B018 - computed when it is first read
        times.append((time.perf_counter() - start) * 1e3)
        if len(stages.setdefault("total", [])) < 10_000:
            for stage, ms in result.timings_ms.items():
                stages.setdefault(stage, []).append(ms)
        if time.perf_counter() - begin >= WINDOW_SECONDS * (len(windows) + 1):
            windows.append(percentiles(times[window_start:]))
            window_start = len(times)
            if window is not None:
                window(windows[-1])
    return {
        "product": inspector.product,
        "photograph": list(images[0].shape),
        "threads": inspector.encoder.threads,
        "precision": inspector.encoder.spec.precision,
        "inspections": len(times),
        "per_second": round(len(times) / (sum(times) / 1e3), 1),
        "first": round(first, 1),
        **percentiles(times),
        "stages": {stage: round(float(np.median(ms)), 2) for stage, ms in stages.items() if stage != "decode"},
        "windows": windows,
    }


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """The percentiles `p50`, `p95`, `p99` and the `max` of times, rounded to hundredths."""
    p50, p95, p99 = (round(float(v), 2) for v in np.percentile(times, (50, 95, 99)))
    return {"p50": p50, "p95": p95, "p99": p99, "max": round(max(times), 2)}
