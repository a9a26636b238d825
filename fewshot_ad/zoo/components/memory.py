"""Memory that a fit will take, against what is free: said before it, where the system would kill it in the middle."""

from __future__ import annotations

import contextlib
from pathlib import Path

from fewshot_ad.errors import ZooError

MEMINFO, LIMIT, USED = (
    Path("/proc/meminfo"),
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory.current"),
)


def available_bytes() -> int | None:
    """Memory that this process may still take, by the system and by the limit of its container; None if not known."""
    found: list[int] = []
    with contextlib.suppress(OSError, KeyError, ValueError):
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        found.append(int(fields["MemAvailable"].split()[0]) * 1024)
    # Not where there is no container, or one without a limit.
    with contextlib.suppress(OSError, ValueError):
        found.append(int(LIMIT.read_text()) - int(USED.read_text()))
    return min(found) if found else None


def require_memory(name: str, needed: float, advice: str) -> None:
    """Refuse a fit that would not fit into memory.

    Args:
        name: Name of the baseline.
        needed: Bytes that it takes, by an estimate from measurements.
        advice: What takes less.

    Raises:
        ZooError: It takes more than is there.
    """
    _require(name, needed, "these settings", advice)


def require_room(name: str, kept: float, images: int, views: int = 0) -> None:
    """Refuse, after the first of several images, what their features would take in the end.

    A memory bank and Gaussians are made of the features of all images at once, which have to be joined: twice their
    size. So it is known after one image what a dataset of any size takes, whatever the backbone.

    Args:
        name: Name of the baseline.
        kept: Bytes of the features of the first image and its views.
        images: Number of the images.
        views: Views of each.

    Raises:
        ZooError: They take more than is there.
    """
    of_each = f" with {views} views each" if views else ""
    advice = "Give fewer images, a smaller image_size" + (", fewer views" if views else "") + " or coarser stages."
    _require(name, kept * (2 * images - 1), f"the features of {images} images{of_each}", advice)


def _require(name: str, needed: float, what: str, advice: str) -> None:
    available = available_bytes()
    if available is not None and needed > available:
        raise ZooError(
            f"{name}: expected about {_gigabytes(needed)} of free memory for {what}, got {_gigabytes(available)}. "
            f"{advice}"
        )


def _gigabytes(count: float) -> str:
    gigabytes = count / 1e9
    return f"{gigabytes:.0f} GB" if gigabytes >= 10 else f"{gigabytes:.2g} GB"
