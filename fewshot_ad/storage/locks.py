"""Locks of files between processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

# How long others may write before that is said, and before it is an error; and how often they are asked.
TOLD_AFTER_S = 1.0
WAIT_S = 60.0
_PAUSE_S = 0.02

# Threads of this process and the files that they have locked.
_holders: set[tuple[int, str]] = set()
if sys.platform != "win32":
    # What the parent has locked stays the parent's.
    os.register_at_fork(after_in_child=_holders.clear)


@contextlib.contextmanager
def lock(path: str | os.PathLike[str], wait: bool = True) -> Iterator[None]:
    """Keep other processes from changing a file meanwhile; the lock ends with the process, however that ends.

    On POSIX it is a lock of the file itself, so that no lock file is left lying about and everyone who sees the file
    sees the lock, in containers and on network shares too. A write replaces the file, and with it the lock: whoever
    waited takes up the new file, and the block should end with its write. Windows cannot replace an open file; there
    it is a lock of a file in the temporary folder. A file that does not exist, and a file system without locks, gives
    no lock. Inside the block, the same thread need not wait for itself.

    Args:
        path: The file.
        wait: Whether to wait until another process has ended, for a minute at most; otherwise it is an error at once.

    Raises:
        BlockingIOError: The lock is held already, and `wait` is False.
        TimeoutError: It was held all the time.
        OSError: The file cannot be opened.
    """
    real, process = os.path.realpath(path), os.getpid()
    holder = (threading.get_ident(), real)
    if holder in _holders and not wait:
        raise BlockingIOError(errno.EAGAIN, "this thread holds the lock")
    descriptor = None if holder in _holders else _open_locked(real, wait)
    if descriptor is None:
        yield
        return
    _holders.add(holder)
    try:
        yield
    finally:
        _holders.discard(holder)
        # A child that was forked in the block has the parent's lock and must not open it.
        if process == os.getpid():
            unlock(descriptor)
        os.close(descriptor)


def _open_locked(path: str, wait: bool) -> int | None:
    began, told = time.monotonic(), False
    while os.path.isfile(path):
        try:
            descriptor = _open_for_lock(path)
        except FileNotFoundError:
            continue
        try:
            lock_descriptor(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            if not wait:
                raise
            told = _wait(path, time.monotonic() - began, told)
            continue
        except OSError:
            os.close(descriptor)
            return None
        # While this process waited, another one may have replaced the file.
        if sys.platform == "win32" or is_at(descriptor, path):
            return descriptor
        close_locked(descriptor)
    return None


def _wait(path: str, waited: float, told: bool) -> bool:
    """Pause between two tries; True once it has been said what for."""
    # The shell must not wait for numpy, which it needs.
    from fewshot_ad.host.lifetime import waiting

    if waited > WAIT_S:
        raise TimeoutError(errno.EAGAIN, f"another process has kept it locked for {WAIT_S:.0f} s", path)
    if waited > TOLD_AFTER_S and not told:
        logger.warning("waiting for another process that writes %s", path)
    # A fork need not wait for what this thread waits for.
    with waiting():
        time.sleep(_PAUSE_S)
    return waited > TOLD_AFTER_S


def _open_for_lock(path: str) -> int:
    if sys.platform == "win32":
        name = hashlib.sha256(os.fsencode(os.path.normcase(path))).hexdigest()[:24]
        return os.open(os.path.join(tempfile.gettempdir(), f"fewshot-ad-{name}.lock"), os.O_RDWR | os.O_CREAT)
    try:
        # Network shares lock only what is open for writing.
        return os.open(path, os.O_RDWR)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY)


def lock_descriptor(descriptor: int) -> None:
    """Lock an open file until `close_locked`.

    Args:
        descriptor: Of the open file; on POSIX a folder will do.

    Raises:
        BlockingIOError: Another one holds the lock.
        OSError: The file system has no locks.
    """
    if sys.platform == "win32":
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(errno.EAGAIN, "another process holds the lock") from error
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock(descriptor: int) -> None:
    """End the lock of an open file, also where a child that was forked meanwhile has the file open as well."""
    if sys.platform != "win32":
        # Closing alone would leave it to the last one who has the file open.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def close_locked(descriptor: int) -> None:
    """Close a file that this process has locked, and end the lock."""
    unlock(descriptor)
    os.close(descriptor)


def is_at(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Whether an open file is the one that stands at a path now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
