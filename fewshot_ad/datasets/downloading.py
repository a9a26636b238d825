"""Downloads datasets that are published without a form; the only place in the package that opens a connection."""

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

from fewshot_ad.arguments import flag
from fewshot_ad.arrays import Progress
from fewshot_ad.datasets.card import Archive, registered
from fewshot_ad.datasets.opening import find_layout
from fewshot_ad.errors import DatasetError

_CHUNK = 1 << 20
_TIMEOUT_S = 60


def download(name: str, root: Path | str, accept_license: bool = False, progress: Progress | None = None) -> Path:
    """Download a dataset from its publisher into a new folder.

    Everything happens in a temporary folder beside it, which is renamed only after everything succeeded.

    Args:
        name: A name in `dataset_cards()`.
        root: Folder to create; it may exist if it is empty.
        accept_license: Set it to True to confirm that you have read and accept the license on the dataset's card.
        progress: Called as `progress("download", bytes, total bytes)`, then as `progress("unpack", files, all files)`.

    Returns:
        The folder to pass to `open_dataset`: the root or a folder below it.

    Raises:
        DatasetError: The publisher requires a form, the license is not accepted, the folder is not empty, or the
            download is damaged or has another layout. No files are left behind.
    """
    flag(accept_license, "accept_license", DatasetError)
    card, _ = registered(name)
    root = Path(root)
    if card.archive is None:
        raise DatasetError(
            f"{card.title}: expected a dataset that can be downloaded without a form, but this one cannot. Get it from "
            f"{card.source}, unpack it, then run `fewshot-ad datasets check {name} FOLDER`."
        )
    if not accept_license:
        raise DatasetError(
            f"{card.title}: expected its license to be accepted. It is: {card.license}, see {card.source}. Read it, "
            "then pass accept_license=True (in the shell: --accept-license)."
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DatasetError(f"{root}: expected a new or empty folder, but it is not. Choose another.")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download_", dir=root.parent) as folder:
            file, content = Path(folder) / "archive", Path(folder) / "content"
            _download(card.archive, file, progress)
            extract(file, content, progress)
            layout = find_layout(card, content)
            if layout is None:
                raise DatasetError(
                    f"{card.archive.url}: expected {card.title}, got an archive of another layout. Get it from "
                    f"{card.source}."
                )
            entries = list(content.iterdir())
            # An archive that holds a single folder is not nested into another.
            top = entries[0] if len(entries) == 1 and layout != content else content
            if root.exists():
                root.rmdir()
            top.rename(root)
            return root / layout.relative_to(top)
    except (OSError, HTTPException) as error:
        raise DatasetError(
            f"{card.archive.url}: cannot be downloaded into {root} ({error}). Check the connection, the disk space and "
            "the permissions, then try again."
        ) from error


def _download(archive: Archive, file: Path, progress: Progress | None) -> None:
    digest, done = hashlib.sha256(), 0
    # The address comes from a card in this package, so its scheme needs no check.
    with urlopen(archive.url, timeout=_TIMEOUT_S) as response, file.open("wb") as sink:  # noqa: S310
        total = int(response.headers.get("Content-Length") or 0)
        while chunk := response.read(_CHUNK):
            sink.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress("download", done, max(total, done))
    if total and done != total:
        raise DatasetError(f"{archive.url}: expected {total} bytes, got {done}. The connection broke: try again.")
    if archive.sha256 and digest.hexdigest() != archive.sha256:
        raise DatasetError(
            f"{archive.url}: expected SHA-256 {archive.sha256}, got {digest.hexdigest()}. The file was damaged on the "
            "way or changed by the publisher; do not use it."
        )


def extract(file: Path, folder: Path, progress: Progress | None = None) -> None:
    """Unpack a tar or zip archive that holds nothing but plain files, all of them below the folder.

    Args:
        file: The archive.
        folder: Folder to unpack into; created if it does not exist.
        progress: Called as `progress("unpack", files, all files)`.

    Raises:
        DatasetError: The file is not an archive, is damaged, holds a link, a device or a path that leads out of the
            folder, or needs more space than the disk has.
    """
    try:
        # A tar archive whose last file is a zip archive also looks like a zip archive, so tar is tried first.
        if tarfile.is_tarfile(file):
            with tarfile.open(file) as tar:
                _write(list(_tar_members(tar)), folder, progress)
        else:
            with zipfile.ZipFile(file) as archive:
                _write(list(_zip_members(archive)), folder, progress)
    except _ARCHIVE_ERRORS as error:
        raise DatasetError(
            f"{file.name}: expected a tar or zip file, got a damaged file or another kind ({error})."
        ) from error


# What the standard library raises for archives that are damaged or use an unknown compression.
_ARCHIVE_ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


class _Member(NamedTuple):
    """A plain file in an archive; `open` starts reading it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe_archive(info.filename, "a link or device")
        if not info.is_dir():
            yield _Member(info.filename, info.file_size, partial(archive.open, info))


def _tar_members(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        if not (info.isreg() or info.isdir()):
            raise _unsafe_archive(info.name, "a link or device")
        if info.isreg():
            # `extractfile` returns None only for members that are not plain files.
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
        raise _unsafe_archive(name, "a path that leads out of the folder")
    return folder.joinpath(*parts)


def _unsafe_archive(name: str, kind: str) -> DatasetError:
    return DatasetError(f"expected plain files in the archive, got {kind}: {name!r}. Nothing was unpacked.")
