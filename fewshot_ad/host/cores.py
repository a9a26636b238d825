"""The cores that a process may use."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path


def usable_cores() -> int:
    """The cores that this process may use, which a container or `taskset` can limit; elsewhere those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def pin_to(cpus: Sequence[int]) -> Iterator[None]:
    """Processes that start inside this context run on these processors alone, with all their threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def pin_apart(cpus: int) -> Iterator[None]:
    """Keep this thread, and those it starts, to so many processors that no other job of this user has.

    OpenVINO takes all processors it may run on, whatever Ray thinks a job has. Where there are not as many free ones,
    or the system knows no such thing, nothing is changed.
    """
    with contextlib.ExitStack() as held:
        own = _lock_processors(cpus, held)
        if len(own) < cpus:
            held.close()
            yield
            return
        with pin_to(own):
            yield


def _lock_processors(cpus: int, held: contextlib.ExitStack) -> list[int]:
    """At most so many processors whose lock file no other holds; the locks end with `held` or with the process."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    import fcntl

    folder = Path(tempfile.gettempdir()) / f"fewshot-ad-processors-{os.getuid()}"
    own: list[int] = []
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for cpu in sorted(os.sched_getaffinity(0)):
            # Of this user alone, and no link to somewhere else.
            lock = os.open(folder / f"{cpu}.lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
            held.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            own.append(cpu)
            if len(own) == cpus:
                break
    except OSError:
        logging.getLogger(__name__).warning("%s: cannot be used, so jobs of this node share processors.", folder)
        own.clear()
    return own
