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
    available = available_bytes()
    if available is not None and needed > available:
        raise ZooError(
            f"{name}: expected about {needed / 1e9:.0f} GB of free memory for these settings, got "
            f"{available / 1e9:.0f} GB. {advice}"
        )
