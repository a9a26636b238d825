"""A folder as a whole: the older one, or the new one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from fewshot_ad.storage.temporary import mount_below, remove_tree, sweep, sync_folder, temporary_folder


@contextlib.contextmanager
def replace_folder(folder: str | os.PathLike[str], former: Collection[str], last: str) -> Iterator[Path]:
    """Write a folder whole or not at all: into a temporary folder, which takes its place when the block ends.

    What else lies in the folder is carried over: files as hard links where the file system has them, subfolders with
    their owners. Where the folder cannot be exchanged, because it is a mount or the folder above it is not writable,
    it must be empty, and is filled file by file. A folder in which something is mounted stays as it is.

    Args:
        folder: The folder; those above it are made if they do not exist.
        former: Names of the files of an older version, which are not carried over.
        last: Name of the file that comes last where the folder is filled file by file, so that it vouches for them.

    Yields:
        The folder to write into.

    Raises:
        OSError: It cannot be written, or something is mounted in it; what was there before is untouched, and no folder
            is left behind.
    """
    target = Path(os.path.realpath(folder))
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    _restore(target)
    fixed = target.is_dir() and (os.path.ismount(target) or not os.access(target.parent, os.W_OK))
    place = target if fixed else target.parent
    try:
        sweep(place)
        if fixed and any(target.iterdir()):
            raise OSError(errno.EBUSY, "it is not empty and cannot be exchanged as a whole", str(target))
        if target.is_dir() and (mount := mount_below(target)):
            raise OSError(errno.EBUSY, f"{mount} in it is mounted, so it cannot be exchanged as a whole", str(target))
        with temporary_folder(place) as staging:
            yield staging
            _sync_files(staging)
            if fixed:
                for path in sorted(staging.iterdir(), key=lambda path: path.name == last):
                    os.replace(path, target / path.name)
            else:
                _exchange(staging, target, former)
            sync_folder(place)
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def _exchange(staging: Path, target: Path, former: Collection[str]) -> None:
    if not target.exists():
        os.rename(staging, target)
        return
    new = {path.name for path in staging.iterdir()}
    for path in target.iterdir():
        if path.name not in new and path.name not in former:
            _carry_over(path, staging / path.name)
    found = target.stat()
    with contextlib.suppress(OSError):
        os.chmod(staging, stat.S_IMODE(found.st_mode))
        if sys.platform != "win32":
            os.chown(staging, found.st_uid, found.st_gid)
    if not _exchange_names(staging, target):
        aside = _aside(target)
        os.rename(target, aside)
        os.rename(staging, target)
        remove_tree(aside)


def _carry_over(source: Path, target: Path) -> None:
    """A further name for what the user has there, of the same owner and mode.

    Raises:
        OSError: It cannot be had without a copy, and the original would go with the older folder.
    """
    found = source.lstat()
    if not stat.S_ISDIR(found.st_mode):
        _link_or_copy(source, target)
        return
    target.mkdir()
    for path in source.iterdir():
        _carry_over(path, target / path.name)
    if sys.platform != "win32":
        made = target.lstat()
        if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
            os.chown(target, found.st_uid, found.st_gid)
    shutil.copystat(source, target)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError) as error:
        # Mounted there, if only under a second name of the same disk: a copy is another file.
        if isinstance(error, OSError) and error.errno == errno.EXDEV:
            raise OSError(errno.EBUSY, f"{source} in it is mounted", str(source)) from error
        shutil.copy2(source, target, follow_symlinks=False)


def _exchange_names(one: Path, other: Path) -> bool:
    """Let two names change places in one step, which Linux alone can; False where it cannot be done."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _aside(target: Path) -> Path:
    """Where an older folder waits for the instant that two renames take; the name is that of this folder alone."""
    return target.with_name(f".fsad-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}.old")


def _restore(target: Path) -> None:
    """Mend what a kill between two renames has left: without its folder, the older one comes back."""
    aside = _aside(target)
    if aside.is_dir():
        if target.exists():
            remove_tree(aside)
        else:
            os.rename(aside, target)


def _sync_files(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            _sync_files(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
