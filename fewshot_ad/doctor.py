"""Checks an installation without writing anything: versions, engines, processors, weights, and a timed inspection."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import time
from typing import Any

from fewshot_ad.errors import FewshotADError, sentence
from fewshot_ad.host.runtimes import import_openvino, signal_stack_kept

# The required modules and the optional ones: module -> distribution, module -> extra.
BASE = {
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "safetensors": "safetensors",
    "openvino": "openvino",
    "yaml": "pyyaml",
    "typer": "typer",
    "rich": "rich",
    "pydantic": "pydantic",
    "simplejpeg": "simplejpeg",
}
BROKEN = "broken or missing: "
OPTIONAL = {"onnxruntime": "onnx", "torch": "torch", "timm": "torch", "skimage": "demo"}
DISTRIBUTIONS = {**BASE, "skimage": "scikit-image"}


def examine() -> dict[str, Any]:
    """Examine this installation.

    Returns:
        Plain JSON types; `ok` = whether enrolling and inspecting with a shipped encoder work.
    """
    base = {module: _imported(module) for module in BASE}
    extras = {module: _version(module) or f"absent (extra '{extra}')" for module, extra in OPTIONAL.items()}
    problems = [f"{BASE[module]}: {state}" for module, state in base.items() if state.startswith(BROKEN)]
    weights: dict[str, str] = {}
    engines: dict[str, str] = {}
    smoke: dict[str, Any] = {}
    if not problems:
        weights, engines, smoke = _weights(), _engines(), _smoke()
        problems += [] if weights else ["no shipped encoder was found: reinstall fewshot-ad"]
        problems += [f"weights of {name}: {state}" for name, state in weights.items() if state != "ok"]
        problems += [] if engines["openvino"] == "ok" else [f"engine openvino: {engines['openvino']}"]
        problems += [str(smoke["error"])] if "error" in smoke else []
    return {
        "ok": not problems,
        "problems": problems,
        "fewshot_ad": _distribution("fewshot-ad"),
        "python": platform.python_version(),
        "platform": _platform(),
        "processor": processor_name(),
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


def _platform() -> str:
    # `platform.platform` would start `uname` for its last word.
    words = (platform.system(), platform.release(), platform.machine(), *platform.libc_ver())
    return "-".join(word for word in words if word)


def _has_affinity() -> bool:
    return hasattr(os, "sched_getaffinity")


def processor_name() -> str:
    """The processor's name."""
    try:
        with signal_stack_kept():
            return str(import_openvino().Core().get_property("CPU", "FULL_DEVICE_NAME"))
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


def _imported(module: str) -> str:
    try:
        import_openvino() if module == "openvino" else importlib.import_module(module)
    except Exception as error:  # a broken third-party package must not stop the diagnosis
        reason = f"{type(error).__name__}: {sentence(error)}"
        return f"{BROKEN}{reason} Reinstall it: pip install --force-reinstall {BASE[module]}"
    return _version(module) or "unknown version"


def _weights() -> dict[str, str]:
    from fewshot_ad.encoder.weights import shipped_encoders, verified_file

    states = {}
    for name, card in shipped_encoders().items():
        try:
            verified_file(card)
            states[name] = "ok"
        except FewshotADError as error:
            states[name] = str(error)
    return states


def _engines() -> dict[str, str]:
    import numpy as np

    from fewshot_ad.encoder import load_encoder
    from fewshot_ad.encoder.engine import ENGINES

    states: dict[str, str] = {}
    for engine in ENGINES:
        try:
            load_encoder(engine=engine).encode(np.zeros((64, 64, 3), np.uint8))
            states[engine] = "ok"
        except FewshotADError as error:
            states[engine] = str(error)
        except Exception as error:
            states[engine] = f"{BROKEN}{type(error).__name__}: {error}"
    return states


def _smoke() -> dict[str, Any]:
    """Enroll and inspect random textures: milliseconds, the medians of 20 inspections."""
    import numpy as np

    from fewshot_ad.inspector import Inspector

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
