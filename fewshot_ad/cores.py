"""How many cores a process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The cores that this process may use, which a container or `taskset` can limit; elsewhere those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
