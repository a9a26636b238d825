"""Memory that a fit will take, against what is free: said before it, where the system would kill it in the middle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.nn.modules.module import register_module_forward_hook

from fewshot_ad.errors import ZooError

MEMINFO, LIMIT, USED, USES = (
    Path("/proc/meminfo"),
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory.current"),
    Path("/sys/fs/cgroup/memory.stat"),
)


# What must be free in the middle of a first training step: Linux ends a program that goes below nothing.
LEAST_FREE = 300_000_000


def available_bytes() -> int | None:
    """Memory that this process may still take, by the system and by the limit of its container; None if not known."""
    found: list[int] = []
    with contextlib.suppress(OSError, KeyError, ValueError):
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        found.append(int(fields["MemAvailable"].split()[0]) * 1024)
    # Not where there is no container, or one without a limit.
    with contextlib.suppress(OSError, ValueError):
        found.append(int(LIMIT.read_text()) - int(USED.read_text()) + _cached())
    return min(found) if found else None


def _cached() -> int:
    """What files take of a container's memory that the system gives back when it is asked for; 0 if not known."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        return int(dict(line.split() for line in USES.read_text().splitlines())["inactive_file"])
    return 0


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


@contextlib.contextmanager
def watched_step(name: str) -> Iterator[None]:
    """Refuse the first step of a training in its middle, where the system would soon end the program.

    All further steps take as much. What a layer keeps for the gradients is there once it has been called, so looking
    after each layer is enough.

    Args:
        name: Of what trains.

    Raises:
        ZooError: Memory runs out.
    """

    def look(*_: Any) -> None:
        available = available_bytes()
        if available is not None and available < LEAST_FREE:
            raise ZooError(
                f"{name}: expected memory for a training step, got {_gigabytes(available)} left in the middle of the "
                "first one. Take a smaller batch or image_size (see `fewshot-ad zoo NAME`), or end other programs."
            )

    handle = register_module_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()


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
