"""Locks of files between processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
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

# Threads of this process and the files that they have locked.
_holders: set[tuple[int, str]] = set()


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
        wait: Whether to wait for another process to end; otherwise it is an error.

    Raises:
        BlockingIOError: The lock is held already, and `wait` is False.
        OSError: The file cannot be opened.
    """
    real = os.path.realpath(path)
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
        os.close(descriptor)


def _open_locked(path: str, wait: bool) -> int | None:
    while os.path.isfile(path):
        try:
            descriptor = _open_for_lock(path)
        except FileNotFoundError:
            continue
        try:
            lock_descriptor(descriptor, wait)
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:
            os.close(descriptor)
            return None
        # While this process waited, another one may have replaced the file.
        if sys.platform == "win32" or is_at(descriptor, path):
            return descriptor
        os.close(descriptor)
    return None


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


def lock_descriptor(descriptor: int, wait: bool) -> None:
    """Lock an open file until it is closed.

    Args:
        descriptor: Of the open file; on POSIX a folder will do.
        wait: Whether to wait for another process to end.

    Raises:
        BlockingIOError: Another one holds the lock, and `wait` is False.
        OSError: The file system has no locks.
    """
    if sys.platform == "win32":
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return
            except OSError as error:
                if not wait:
                    raise BlockingIOError(errno.EAGAIN, "another process holds the lock") from error
                time.sleep(0.05)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_at(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Whether an open file is the one that stands at a path now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
