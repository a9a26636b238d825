"""Fetching a dataset whose publisher gives it to everybody; the only place of the package that asks the network."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast
from urllib.request import urlopen

from fewshot_ad.arrays import Progress
from fewshot_ad.datasets.card import Archive, registered
from fewshot_ad.datasets.opening import find_layout
from fewshot_ad.errors import DatasetError

_CHUNK = 1 << 20
_TIMEOUT_S = 60


def download(name: str, root: Path | str, accept_license: bool = False, progress: Progress | None = None) -> Path:
    """Fetch a dataset from its publisher into a new folder.

    Everything happens in a temporary folder beside it, which takes its name once all is well.

    Args:
        name: A name in `dataset_cards()`.
        root: Folder to make; it may exist if it is empty.
        accept_license: That you have read the license on its card and accept it.
        progress: Called as `progress("download", bytes, total bytes)`, then as `progress("unpack", files, all files)`.

    Returns:
        The folder to open it from: the root or one below.

    Raises:
        DatasetError: The publisher has a form before the download, the license is not accepted, the folder is in use,
            or what came is not what was expected; nothing is left behind then.
    """
    card, _ = registered(name)
    root = Path(root)
    if card.archive is None:
        raise DatasetError(
            f"{card.title}: expected a download open to everybody, but there is none. Get it from {card.source}, "
            f"unpack it, then run `fewshot-ad datasets check {name} FOLDER`."
        )
    if not accept_license:
        raise DatasetError(
            f"{card.title}: expected its license to be accepted. It is: {card.license}, see {card.source}. Read it, "
            "then pass accept_license=True (in the shell: --accept-license)."
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DatasetError(f"{root}: expected a new or empty folder, but something is there. Choose another.")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download_", dir=root.parent) as folder:
            file, unpacked = Path(folder) / "archive", Path(folder) / "unpacked"
            _fetch(card.archive, file, progress)
            extract(file, unpacked, progress)
            found = find_layout(card, unpacked)
            if found is None:
                raise DatasetError(
                    f"{card.archive.url}: expected {card.title}, got an archive of another layout. Get it from "
                    f"{card.source}."
                )
            inside = list(unpacked.iterdir())
            top = inside[0] if len(inside) == 1 and found != unpacked else unpacked
            if root.exists():
                root.rmdir()
            top.rename(root)
            return root / found.relative_to(top)
    except (OSError, HTTPException) as error:
        raise DatasetError(
            f"{card.archive.url}: cannot be fetched into {root} ({error}). Check the connection, the space on the disk "
            "and the permissions, then try again."
        ) from error


def _fetch(archive: Archive, file: Path, progress: Progress | None) -> None:
    digest, done = hashlib.sha256(), 0
    # The address is a constant of the card.
    with urlopen(archive.url, timeout=_TIMEOUT_S) as answer, file.open("wb") as sink:  # noqa: S310
        total = int(answer.headers.get("Content-Length") or 0)
        while chunk := answer.read(_CHUNK):
            sink.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress("download", done, max(total, done))
    if total and done != total:
        raise DatasetError(f"{archive.url}: expected {total} bytes, got {done}. The connection broke: try again.")
    if archive.sha256 and digest.hexdigest() != archive.sha256:
        raise DatasetError(
            f"{archive.url}: expected SHA-256 {archive.sha256}, got {digest.hexdigest()}. The file was damaged on its "
            "way or changed at its source; do not use it."
        )


def extract(file: Path, folder: Path, progress: Progress | None = None) -> None:
    """Unpack a tar or zip file; only plain files, and only below the folder.

    Args:
        file: The archive.
        folder: Made if it is not there.
        progress: Called as `progress("unpack", files, all files)`.

    Raises:
        DatasetError: The file is no archive or damaged, holds a link, a device or a path that leads out of the folder,
            or more than the disk has room for.
    """
    try:
        # A tar whose last file is a zip ends as a zip does, so it is asked first.
        if tarfile.is_tarfile(file):
            with tarfile.open(file) as tar:
                _write(list(_tar_members(tar)), folder, progress)
        else:
            with zipfile.ZipFile(file) as archive:
                _write(list(_zip_members(archive)), folder, progress)
    except _DAMAGED as error:
        raise DatasetError(f"{file.name}: expected a tar or zip file, got a damaged or other one ({error}).") from error


_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


class _Member(NamedTuple):
    """A plain file of an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(info.filename, "a link or device")
        if not info.is_dir():
            yield _Member(info.filename, info.file_size, partial(archive.open, info))


def _tar_members(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        if not (info.isreg() or info.isdir()):
            raise _refused(info.name, "a link or device")
        if info.isreg():
            # None is for what is no plain file.
            yield _Member(info.name, info.size, cast("Callable[[], IO[bytes]]", partial(archive.extractfile, info)))


def _write(members: list[_Member], folder: Path, progress: Progress | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_below(folder, member.name) for member in members]
    needed, free = sum(member.size for member in members), shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetError(f"{folder}: expected {needed / 1e9:.1f} GB of free space, got {free / 1e9:.1f}. Make room.")
    for done, (member, path) in enumerate(zip(members, paths, strict=True), start=1):
        path.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, path.open("wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK)
        if progress is not None:
            progress("unpack", done, len(members))


def _below(folder: Path, name: str) -> Path:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0] or "\0" in name:
        raise _refused(name, "a path that leads out of the folder")
    return folder.joinpath(*parts)


def _refused(name: str, what: str) -> DatasetError:
    return DatasetError(f"expected plain files in the archive, got {what}: {name!r}. Nothing of it was unpacked.")
