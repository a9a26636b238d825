"""Checks an installation without writing anything: versions, engines, threads, weights, a timing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import time
from typing import Any

import numpy as np

from fewshot_ad.encoder import DEFAULT_ENCODER, load_encoder
from fewshot_ad.encoder.engine import ENGINES, EngineName
from fewshot_ad.encoder.weights import shipped_encoders, verified_file
from fewshot_ad.errors import FewshotADError
from fewshot_ad.inspector import Inspector

BASE = {
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "safetensors": "safetensors",
    "openvino": "openvino",
    "yaml": "pyyaml",
    "typer": "typer",
    "rich": "rich",
    "imagesize": "imagesize",
}
OPTIONAL = {"onnxruntime": "onnx", "torch": "torch", "timm": "torch", "skimage": "demo"}
DISTRIBUTIONS = {**BASE, "skimage": "scikit-image"}


def examine() -> dict[str, Any]:
    """Examine this installation.

    Returns:
        Plain JSON types; `ok` says whether enrolling and inspecting with a shipped encoder work.
    """
    base = {module: _version(module) for module in BASE}
    extras = {module: _version(module) or f"absent (extra '{extra}')" for module, extra in OPTIONAL.items()}
    weights = {name: _weights(name) for name in shipped_encoders()}
    engines = {engine: _engine(engine) for engine in ENGINES}
    smoke = _smoke()
    problems = [f"{BASE[module]} is missing" for module, version in base.items() if version is None]
    problems += [f"weights of {name}: {state}" for name, state in weights.items() if state != "ok"]
    problems += [] if engines["openvino"] == "ok" else [f"engine openvino: {engines['openvino']}"]
    problems += [str(smoke["error"])] if "error" in smoke else []
    return {
        "ok": not problems,
        "problems": problems,
        "fewshot_ad": _distribution("fewshot-ad"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": {
            "machine": os.cpu_count(),
            "usable": len(os.sched_getaffinity(0)) if _has_affinity() else None,
        },
        "base": base,
        "extras": extras,
        "engines": engines,
        "weights": weights,
        "smoke_test": smoke,
    }


def _has_affinity() -> bool:
    return hasattr(os, "sched_getaffinity")


def _processor() -> str:
    try:
        import openvino

        return str(openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"))
    except Exception:
        return platform.processor() or platform.machine()


def _distribution(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version(module: str) -> str | None:
    if importlib.util.find_spec(module) is None:
        return None
    return _distribution(DISTRIBUTIONS.get(module, module)) or "unknown version"


def _weights(name: str) -> str:
    try:
        verified_file(shipped_encoders()[name])
    except FewshotADError as error:
        return str(error)
    return "ok"


def _engine(engine: EngineName) -> str:
    try:
        encoder = load_encoder(DEFAULT_ENCODER, engine=engine)
        encoder.encode(np.zeros((64, 64, 3), np.uint8))
    except FewshotADError as error:
        return str(error)
    except Exception as error:  # a broken installation of a third party must not break the diagnosis
        return f"broken: {type(error).__name__}: {error}"
    return "ok"


def _smoke() -> dict[str, Any]:
    """Enroll and inspect made-up textures; milliseconds, medians of 20."""
    rng = np.random.default_rng(0)
    good = [rng.integers(90, 110, (256, 256, 3), dtype=np.uint8) for _ in range(4)]
    try:
        start = time.perf_counter()
        inspector = Inspector.from_support(good, product="smoke", image_size=256, views="hflip,vflip,rotate=180")
        enroll_ms = (time.perf_counter() - start) * 1e3
        inspector.inspect(good[0])
        timings = [inspector.inspect(good[0]).timings_ms for _ in range(20)]
    except Exception as error:
        return {"error": f"the smoke test failed: {type(error).__name__}: {error}"}
    medians = {stage: round(float(np.median([t[stage] for t in timings])), 2) for stage in timings[0]}
    return {"enroll_ms": round(enroll_ms, 1), "inspect_ms": medians}
