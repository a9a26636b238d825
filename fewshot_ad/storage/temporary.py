"""Temporary files and folders, and the removal of those that a kill has left behind."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.storage.locks import close_locked, is_at, lock_descriptor

# Short, so that beside a name of 255 bytes, which is legal, there is room for the temporary one.
_TEMPORARY = re.compile(r"\.fsad-[0-9a-f]{12}\.tmp")
# Where no lock says whether its writer lives: older than any write takes.
_ABANDONED_S = 24 * 3600.0


def temporary_file(folder: Path, private: bool) -> tuple[Path, int]:
    """Make a new file, and lock it as long as it is open.

    Args:
        folder: Where.
        private: Whether others may not read it, so that it can get the mode of a private file before its name.

    Returns:
        Its path, and its descriptor, open for reading and writing.

    Raises:
        OSError: It cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        path = folder / f".fsad-{secrets.token_hex(6)}.tmp"
        descriptor = os.open(path, flags, 0o600 if private else 0o666)
        # Another process may have swept it before it was locked.
        if _locked_at(descriptor, path):
            return path, descriptor
        os.close(descriptor)


@contextlib.contextmanager
def temporary_folder(place: Path) -> Iterator[Path]:
    """Make a new folder, locked for the duration of the block, and remove what has its name then.

    Args:
        place: Where.

    Yields:
        Its path.

    Raises:
        OSError: It cannot be made.
    """
    while True:
        path = place / f".fsad-{secrets.token_hex(6)}.tmp"
        path.mkdir()
        if sys.platform == "win32":
            # A folder cannot be opened there; its age alone tells whether it was left behind.
            descriptor = None
            break
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            if _locked_at(descriptor, path):
                break
            os.close(descriptor)
    try:
        yield path
    finally:
        remove_tree(path)
        if descriptor is not None:
            close_locked(descriptor)


def _locked_at(descriptor: int, path: Path) -> bool:
    """Lock what this process has just made; False where another one has swept it before."""
    if sys.platform == "win32":
        return True
    try:
        lock_descriptor(descriptor)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks; nobody can sweep it there.
        return True
    return is_at(descriptor, path)


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if _TEMPORARY.fullmatch(entry.name) and (is_folder or entry.is_file(follow_symlinks=False)):
                _remove_if_abandoned(Path(entry.path), is_folder)


def _remove_if_abandoned(path: Path, is_folder: bool) -> None:
    if sys.platform == "win32":
        # An open file cannot be removed there; between its end and its renaming it is young.
        if time.time() - path.stat().st_mtime > _ABANDONED_S:
            remove_tree(path) if is_folder else path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            # A living writer holds the lock; one that was killed cannot.
            lock_descriptor(descriptor)
            remove_tree(path) if is_folder else path.unlink(missing_ok=True)
        finally:
            close_locked(descriptor)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that goes; one in which something is mounted stays."""
    with contextlib.suppress(OSError):
        if mount_below(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)


def mount_below(folder: Path) -> Path | None:
    """The first place in a folder, at any depth, where something is mounted or that lies on another disk."""
    device = folder.lstat().st_dev
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_dev != device or os.path.ismount(path):
                    return path
    return None


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    # Makes the rename itself survive a power cut, where the file system can: Windows and some network shares cannot.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
