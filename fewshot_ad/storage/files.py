"""A file as a whole: the older one, or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fewshot_ad.storage.locks import unlock
from fewshot_ad.storage.outputs import kind_of
from fewshot_ad.storage.temporary import sweep, sync_folder, temporary_file


def write_atomically(path: str | os.PathLike[str], data: bytes, *, durable: bool = True, crowded: bool = False) -> None:
    """Write a file whole or not at all: to a temporary file beside it, flushed to disk, then renamed.

    A symbolic link stays, and what it leads to is replaced. The mode of an older file stays, and its owner and group
    where the system lets us. A hard link is cut: its other names keep the older content, as a file that others see
    under other names cannot be replaced as a whole. What a killed process has left in the folder is removed.

    Args:
        path: The file; its folder is made if it does not exist. An older file is replaced only once the new one is
            whole on disk.
        data: The content.
        durable: Whether it must outlast a power cut. Without, there is no flush and no search for what killed
            processes have left, which take longer than small files do that come by the hundred.
        crowded: Whether the folder holds so many files that searching it takes longer than writing one; who fills it
            sweeps it now and then.

    Raises:
        OSError: It cannot be written, or is a folder, FIFO, device or socket; what was there before is untouched.
    """
    with replacing(path, durable=durable, crowded=crowded) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = True, crowded: bool = False) -> Iterator[IO[bytes]]:
    """The same for what is written piece by piece: a file that gets its name once the block has ended well.

    Args:
        path: See `write_atomically`.
        durable: Likewise.
        crowded: Likewise.

    Yields:
        The file, open for writing.

    Raises:
        OSError: Likewise.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    former = _former(target)
    if durable and not crowded:
        sweep(target.parent)
    temporary, descriptor = temporary_file(target.parent, private=former is not None)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            if former is not None:
                _keep_mode_and_owner(descriptor, former)
            if durable:
                os.fsync(descriptor)
            if sys.platform == "win32":
                file.close()
            # Elsewhere still open, so that its lock keeps others from sweeping it.
            os.replace(temporary, target)
            unlock(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(target.parent)


def rename_to_free(source: Path, target: Path) -> None:
    """Rename a file, unless something has the new name already; both lie in one file system.

    Raises:
        FileExistsError: Something has it, and stays.
        OSError: It cannot be renamed.
    """
    try:
        # A rename would replace what is there. But not every disk has links, such as a stick with FAT.
        os.link(source, target)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        os.rename(source, target)
        return
    os.unlink(source)


def _former(target: Path) -> os.stat_result | None:
    try:
        former = target.stat()
    except FileNotFoundError:
        return None
    kind = kind_of(former)
    if kind == "a folder":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if kind is not None:
        raise OSError(errno.EINVAL, f"it is {kind} and no plain file", str(target))
    return former


def _keep_mode_and_owner(descriptor: int, former: os.stat_result) -> None:
    if sys.platform == "win32":
        return
    mode, new = stat.S_IMODE(former.st_mode), os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (former.st_uid, former.st_gid):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, -1, former.st_gid)
        with contextlib.suppress(OSError):
            os.fchown(descriptor, former.st_uid, -1)
        if os.fstat(descriptor).st_gid != former.st_gid:
            # Another group may not read more than all others may.
            mode = (mode & ~0o070) | ((mode & 0o007) << 3)
    # Some file systems, such as FAT, have no modes.
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, mode)
