"""Where and with what a benchmark ran: processor, library versions, time, peak memory."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import platform
from pathlib import Path

from fewshot_ad.doctor import processor_name
from fewshot_ad.host.cores import usable_cores

LIBRARIES = (
    *("fewshot-ad", "numpy", "opencv-python-headless", "openvino", "faiss-cpu", "torch", "torchvision", "timm"),
    *("anomalib", "lightning", "open_clip_torch", "ultralytics", "ray"),
)


def machine(device: str = "cpu") -> dict[str, str]:
    """Processor, number of usable cores, system and architecture of this machine, and its GPU where it computes."""
    gpu = {} if device == "cpu" else {"device": _gpu_name(device)}
    return {
        "processor": processor_name(),
        "cpus": str(usable_cores()),
        "system": platform.system(),
        "architecture": platform.machine(),
        **gpu,
    }


def _gpu_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else device


def versions() -> dict[str, str]:
    """Versions of Python and of those `LIBRARIES` that are installed."""
    installed = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def now() -> str:
    """ISO time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def forget_peak() -> None:
    """Start the peak memory of this process anew, where the system can: a new process inherits its parent's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> float | None:
    """Peak resident memory of this process in megabytes; None where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / (1e6 if platform.system() == "Darwin" else 1e3))
