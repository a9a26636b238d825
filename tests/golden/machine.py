"""What the last digits of a score depend on: the processor and the libraries that compute it."""

from __future__ import annotations

import importlib.metadata


def this_machine() -> dict[str, str]:
    """The processor's name and the libraries' versions."""
    import openvino

    versions = {p: importlib.metadata.version(p) for p in ("numpy", "opencv-python-headless", "openvino", "faiss-cpu")}
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {
        "processor": openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"),
        "bf16": str("BF16" in capabilities),
        **versions,
    }
