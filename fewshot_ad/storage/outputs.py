"""What may be written where, and what to say of what cannot."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from fewshot_ad.errors import FewshotADError

_MOUNTED = (
    "It, or something in it, is mounted by itself, so it cannot be replaced: mount the folder above it, or name "
    "another place"
)
_ADVICE = {
    errno.ENOSPC: "Free some space or choose another disk",
    errno.EDQUOT: "Your quota is used up: free some space or choose another disk",
    errno.EFBIG: "The file is larger than this system lets it be: raise the limit (ulimit -f) or choose another disk",
    errno.EROFS: "The file system is read-only: choose a folder elsewhere, or mount it writable",
    errno.EACCES: "Choose a folder you may write to, or change its permissions",
    errno.EPERM: "Choose a folder you may write to, or change its permissions",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ENOTDIR: "A part of its path is a file and no folder: choose a folder you may write to",
    errno.EEXIST: "A part of its path is a file and no folder: choose a folder you may write to",
    errno.EISDIR: "It is a folder: name a file in it",
    errno.ELOOP: "Its symbolic links lead in a circle: mend them or choose another name",
    errno.EBUSY: _MOUNTED,
    errno.EXDEV: _MOUNTED,
    errno.EMFILE: "Too many files are open: close some, or raise the limit (ulimit -n)",
    errno.ENFILE: "Too many files are open on this machine: close some",
    errno.EAGAIN: "Try again once that process is done, or end it",
    errno.EIO: "Check the disk and the network",
}


def write_failure(path: str | os.PathLike[str], error: OSError, n_bytes: int | None = None) -> str:
    """The message about a file or folder that cannot be written: the system's reason, and what helps against it.

    Args:
        path: What was to be written.
        error: What the system said.
        n_bytes: Size of the content, for the message; None leaves it out.
    """
    needed = f"; {n_bytes / 1e6:.1f} MB are needed" if n_bytes is not None else ""
    advice = _ADVICE.get(error.errno or 0, "Choose another place")
    return f"{os.fspath(path)}: cannot be written ({error.strerror or error}){needed}. {advice}."


def check_output(
    path: str | os.PathLike[str],
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    obstacle: Callable[[Path], str | None] = lambda path: None,
    error: type[FewshotADError] = FewshotADError,
) -> None:
    """Make sure that a file can be written without a loss; nothing is changed on disk.

    Args:
        path: The file to write; symbolic links are followed.
        inputs: Files that are read, none of which may be replaced.
        obstacle: Says why an existing file that is not empty must stay, and what to do; None where it may be replaced.
        error: Class of the errors.

    Raises:
        FewshotADError: It is a folder, a FIFO, a device or a socket; an input; `obstacle` has a reason; or it is not
            the name of a file, see `check_name`. Of the class `error`.
    """
    path = Path(path)
    check_name(path, error)
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    except OSError as problem:
        raise error(write_failure(path, problem)) from problem
    kind = kind_of(found)
    if kind is not None:
        raise error(f"{path}: expected the name of a file to write, got {kind}, which stays as it is. Name a new file.")
    if any(_same(found, source) for source in inputs):
        raise error(
            f"{path}: expected the name of a file to write, got one that this command reads. Choose another name."
        )
    reason = obstacle(path) if found.st_size else None
    if reason is not None:
        raise error(f"{path}: {reason}")


def check_folder(
    folder: str | os.PathLike[str],
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    error: type[FewshotADError] = FewshotADError,
) -> None:
    """Make sure that a folder may be replaced as a whole; nothing is changed on disk.

    Args:
        folder: The folder to write; symbolic links are followed.
        inputs: Files that are read, none of which may lie in it.
        error: Class of the errors.

    Raises:
        FewshotADError: It is no folder; it is or holds the working directory, the home directory or an input; or it is
            a root. Of the class `error`.
    """
    folder = Path(folder)
    check_name(folder, error)
    real = Path(os.path.realpath(folder))
    try:
        if not stat.S_ISDIR(real.stat().st_mode):
            what = kind_of(real.stat()) or "a file"
            raise error(f"{folder}: cannot be written (it is {what}). Name a new folder.")
    except FileNotFoundError:
        return
    except OSError as problem:
        raise error(write_failure(folder, problem)) from problem
    kept = {"the working directory": os.getcwd(), "the home directory": os.path.expanduser("~")}
    kept |= {f"{os.fspath(source)}, which this command reads": os.fspath(source) for source in inputs}
    for name, place in kept.items():
        if Path(os.path.realpath(place)).is_relative_to(real):
            raise error(
                f"{folder}: expected a folder for the files alone, got one that is or holds {name}. Name a new folder "
                f"in it, for example {folder / 'exported'}."
            )


def check_name(path: str | os.PathLike[str], error: type[FewshotADError] = FewshotADError) -> None:
    """Refuse a path of which a file or folder would be made that nobody looks for: with a null byte, or in `~`.

    Args:
        path: What is to be written.
        error: Class of the errors.

    Raises:
        FewshotADError: Of the class `error`.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise error(f"expected the name of a file or folder, got {name!r}, which holds a null byte. Leave it out.")
    # A shell puts the home folder for it, unless it is quoted or behind a "=".
    if os.path.expanduser(name) != name and not os.path.lexists(Path(name).parts[0]):
        raise error(
            f"expected the name of a file or folder, got {name}, in which no shell has put the home folder for ~. "
            f"Write {os.path.expanduser(name)}; in Python, os.path.expanduser gives it."
        )


def kind_of(found: os.stat_result) -> str | None:
    """What something is in place of a plain file, in words; None for a plain file.

    Args:
        found: What `os.stat` says of it.
    """
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    if stat.S_ISREG(found.st_mode):
        return None
    return kinds.get(stat.S_IFMT(found.st_mode), "a special file")


def _same(found: os.stat_result, source: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samestat(found, os.stat(source))
    except (OSError, ValueError):
        return False
