"""Fork and exit of the host process: the native libraries are never at work while either happens.

OpenVINO, OpenCV, FAISS and torch hold locks and threads of their own, which a forked child inherits without the threads
that would release them. And a daemon thread that comes back from native code after the interpreter has ended aborts the
whole process: the C++ of the bindings may not be unwound there. So whatever works natively does so inside
`native_work`, and fork and exit wait until nobody does.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fewshot_ad.arrays import Progress
from fewshot_ad.errors import FewshotADError

# Longer than any single step takes: an inspection, a compilation, a step between two calls of a `Progress`.
# A machine that has much else to do takes many times as long.
FORK_WAIT_S = 30.0
EXIT_WAIT_S = 30.0
# When the threads of native libraries are asleep for sure, and how long a fork waits for that before.
SETTLED_AFTER_S = 1.0
SLEEP_WAIT_S = 0.2
_Native = TypeVar("_Native")
_Items = TypeVar("_Items")


@contextmanager
def native_work() -> Iterator[None]:
    """Work that must not be under way while the process forks or ends; may be nested.

    While another thread forks, it waits for that. On a daemon thread of a process that ends, it never returns.

    Raises:
        FewshotADError: This process was forked while another thread was at work, and it could not be waited for.
    """
    outermost = _gate.enter()
    try:
        yield
    finally:
        if outermost:
            _gate.leave()


def interruptible(progress: Progress | None) -> Progress:
    """The callback of a long piece of `native_work`, which fork and exit need not wait for beyond its next call.

    Args:
        progress: Called outside `native_work`; None for nothing.
    """

    def step(stage: str, done: int, total: int) -> None:
        with waiting():
            if progress is not None:
                progress(stage, done, total)

    return step


@contextmanager
def waiting() -> Iterator[None]:
    """Leave `native_work` for a while, to call or to wait for somebody else."""
    was_at_work = _gate.leave()
    try:
        yield
    finally:
        if was_at_work:
            _gate.enter()


def at_hand(items: _Items) -> _Items | list[Any]:
    """What an iterator gives as a list, which fork and exit need not wait for: it may be a camera.

    Args:
        items: An iterator, or anything else, which is given back as it is.
    """
    if not isinstance(items, Iterator):
        return items
    with waiting():
        return list(items)


def is_forked() -> bool:
    """Whether this process was forked from one that had done `native_work`; threads of that are gone here."""
    return _gate.forked


def fork_count() -> int:
    """How many forks lie between the start of the program and this process: what began before one ends with it."""
    return _gate.forks


def keep_in_children(native: _Native) -> _Native:
    """Never destroy an object in a forked child: its destructor would wait for threads that only the parent has.

    Args:
        native: An object that owns threads.

    Returns:
        The same.
    """
    _owners_of_threads.add(native)
    return native


class ForkSafeLock:
    """A lock that is open in a forked child, whoever held it in the parent, and that no thread waits for itself at.

    Raises:
        FewshotADError: On entry: this thread is inside already, and was interrupted there by what enters now.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._entered = False
        _locks.add(self)

    def __enter__(self) -> None:
        # One that lets its own thread in twice: a signal handler comes in anywhere, and must not wait for itself.
        self._lock.acquire()
        if self._entered:
            self._lock.release()
            raise FewshotADError(
                "expected no call from a signal handler or a callback while this thread is in the middle of the same "
                "work, got one: the two would wait for each other for ever. Set a flag there, and make the call once "
                "this one has ended."
            )
        self._entered = True

    def __exit__(self, *_: object) -> None:
        self._entered = False
        self._lock.release()

    def renew(self) -> None:
        """Open it."""
        self._lock = threading.RLock()
        self._entered = False


class _Gate:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        # By thread, so that the one that forks does not wait for itself.
        self._at_work: set[int] = set()
        self._forking: int | None = None
        self._ending = False
        self._used = False
        self._last_work = -SETTLED_AFTER_S
        self._orphaned = False
        self.forked = False
        self.forks = 0

    def enter(self) -> bool:
        me = threading.get_ident()
        if me in self._at_work:
            return False
        with self._changed:
            while self._must_wait(me):
                self._changed.wait()
            if self._orphaned:
                raise FewshotADError(
                    "expected a process in which inspecting can work, got one that was forked while another thread "
                    "was enrolling or inspecting. Start it with multiprocessing's 'spawn' or 'forkserver' method, or "
                    "fork before the first product is enrolled or loaded."
                )
            self._used = True
            self._at_work.add(me)
        return True

    def leave(self) -> bool:
        me = threading.get_ident()
        if me not in self._at_work:
            return False
        with self._changed:
            self._at_work.discard(me)
            self._last_work = time.monotonic()
            self._changed.notify_all()
        return True

    def _must_wait(self, me: int) -> bool:
        # What still runs while the process ends is the main thread, with the `atexit` functions of others, and daemons.
        ended = self._ending and threading.current_thread().daemon
        return ended or self._forking not in (None, me)

    def before_fork(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._forking in (None, me), FORK_WAIT_S)
            self._forking = me
            self._wait_for_others(me, FORK_WAIT_S)
            # OpenVINO's threads go to sleep a little after the call they worked for; until then they hold locks.
            if time.monotonic() - self._last_work < SETTLED_AFTER_S:
                _wait_for_sleep()

    def after_fork_in_parent(self) -> None:
        with self._changed:
            self._forking = None
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        me = threading.get_ident()
        self._orphaned |= bool(self._at_work - {me})
        self._changed = threading.Condition()
        self._at_work &= {me}
        self._forking, self._ending = None, False
        self.forked = self._used
        self.forks += 1
        for lock in list(_locks):
            lock.renew()
        for native in list(_owners_of_threads):
            # One reference that nobody gives back: not even the end of the interpreter destroys it.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))

    def before_exit(self) -> None:
        with self._changed:
            self._ending = True
            self._wait_for_others(threading.get_ident(), EXIT_WAIT_S)

    def _wait_for_others(self, me: int, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._at_work - {me} and time.monotonic() < until:
            self._changed.wait(until - time.monotonic())


def _wait_for_sleep() -> None:
    until = time.monotonic() + SLEEP_WAIT_S
    rests = 0
    # Twice in a row: a thread may be seen between two pieces of work.
    while rests < 2 and time.monotonic() < until:
        time.sleep(0.002)
        rests = rests + 1 if _all_asleep() else 0


def _all_asleep() -> bool:
    """Whether no thread of a native library runs; False where the system does not tell (all but Linux)."""
    own = {str(thread.native_id) for thread in threading.enumerate()}
    try:
        return all(
            Path("/proc/self/task", task, "stat").read_text().rpartition(")")[2].split()[0] == "S"
            for task in os.listdir("/proc/self/task")
            if task not in own
        )
    except OSError:  # a thread ended meanwhile
        return False


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()
_owners_of_threads: weakref.WeakSet[Any] = weakref.WeakSet()
# Of the process, as fork and exit are.
_gate = _Gate()
atexit.register(_gate.before_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_gate.before_fork,
        after_in_parent=_gate.after_fork_in_parent,
        after_in_child=_gate.after_fork_in_child,
    )
