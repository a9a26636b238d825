"""A station's products and journal in one file, and back: whole, checked, never over what is there."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fewshot_ad.arrays import Progress
from fewshot_ad.errors import StationError
from fewshot_ad.line.journal import Journal
from fewshot_ad.line.record import utc_now
from fewshot_ad.storage import rename_to_free, write_failure

SCHEMA = "fewshot-ad/backup/1"
FETCHED = ".fetched.json"
MANIFEST, JOURNAL, CATALOG, PICTURES = "manifest.json", "journal.db", "products", "pictures"
CHUNK = 1 << 20
# The manifest of a million pictures has some 150 MB.
MAX_MANIFEST = 500_000_000


def back_up(
    catalog: Path, journal: str, path: Path, *, pictures: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Write products, journal and pictures to one tar file, while the station runs.

    Args:
        catalog: Folder of the products.
        journal: The journal's file.
        path: The tar file; there must be none.
        pictures: Folder of pictures; None leaves them out.
        progress: Called as `progress("backup", done, total)`.

    Returns:
        What is in it: counts and bytes.

    Raises:
        StationError: Something cannot be read or written, or there is a file of that name.
    """
    if path.exists():
        raise StationError(f"{path}: expected a name that is free, got a file that is there. Choose another name.")
    try:
        # Beside the backup, where there must be room for it anyway.
        with tempfile.TemporaryDirectory(prefix=".fewshot-ad-", dir=path.parent) as scratch:
            copy, temporary = Path(scratch, JOURNAL), Path(scratch, "backup.tar")
            opened = Journal.open(journal)
            try:
                opened.backup(copy)
            finally:
                opened.close()
            members = {JOURNAL: copy}
            members |= {f"{CATALOG}/{one.name}": one for one in sorted(catalog.glob("*.fsad")) if one.is_file()}
            if (catalog / FETCHED).is_file():
                members[f"{CATALOG}/{FETCHED}"] = catalog / FETCHED
            if pictures is not None:
                found = (one for one in sorted(pictures.rglob("*")) if one.is_file() and not one.name.startswith("."))
                members |= {f"{PICTURES}/{one.relative_to(pictures).as_posix()}": one for one in found}
            manifest = _write(temporary, members, progress)
            rename_to_free(temporary, path)
    except FileExistsError as error:
        raise StationError(f"{path}: a file of that name has been written meanwhile. Choose another name.") from error
    except OSError as error:
        raise StationError(write_failure(path, error)) from error
    return _summary(manifest)


def restore(path: Path, folder: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Unpack a backup into a folder that is empty or not there: `products`, `journal.db` and `pictures` in it.

    Args:
        path: The tar file.
        folder: Where to.
        progress: Called as `progress("restore", done, total)`.

    Returns:
        What was in it.

    Raises:
        StationError: It is no backup, or damaged, or the folder is not empty; then nothing is left behind.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StationError(f"{folder}: expected a folder that is empty or not there, got another one. Choose another.")
    if not path.is_file():
        raise StationError(f"expected a backup at {path}, got none. Check the path.")
    target = Path(os.path.realpath(folder))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fewshot-ad-", dir=target.parent) as scratch:
            unpacked = Path(scratch, "unpacked")
            manifest = _read(path, unpacked, progress)
            if target.exists():
                target.rmdir()
            os.rename(unpacked, target)
    except OSError as error:
        raise StationError(write_failure(folder, error)) from error
    return _summary(manifest)


def _write(temporary: Path, members: dict[str, Path], progress: Progress | None) -> dict[str, Any]:
    entries: dict[str, dict[str, Any]] = {}
    with tarfile.open(temporary, "w") as archive:
        for done, (name, file) in enumerate(members.items(), 1):
            try:
                source = file.open("rb")
            except FileNotFoundError:
                # A product that was deleted, or a picture that made room, since they were listed.
                continue
            with source:
                # What is open stays as it is: products and pictures are replaced, and never written to.
                digest, size = hashlib.sha256(), 0
                for block in _chunks(source):
                    digest.update(block)
                    size += len(block)
                source.seek(0)
                entries[name] = {"sha256": digest.hexdigest(), "bytes": size}
                _add(archive, name, source, size)
            if progress is not None:
                progress("backup", done, len(members))
        manifest = {"schema": SCHEMA, "time": utc_now().isoformat(), "files": entries}
        text = json.dumps(manifest).encode()
        _add(archive, MANIFEST, io.BytesIO(text), len(text))
    with temporary.open("rb+") as written:
        os.fsync(written.fileno())
    return manifest


def _add(archive: tarfile.TarFile, name: str, data: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    archive.addfile(member, data)


def _read(path: Path, folder: Path, progress: Progress | None) -> dict[str, Any]:
    """Unpack into a folder, every file checked against the manifest."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = {member.name: member for member in archive.getmembers()}
            manifest = _manifest(archive, members, path)
            for done, (name, entry) in enumerate(manifest["files"].items(), 1):
                _unpack(archive, members.get(name), folder, name, entry, path)
                if progress is not None:
                    progress("restore", done, len(manifest["files"]))
    except tarfile.TarError as error:
        raise StationError(f"{path}: expected a backup, got another or a damaged file ({error}).") from error
    if JOURNAL not in manifest["files"]:
        raise StationError(f"{path}: expected a backup with a journal, got none. Take another one.")
    return manifest


def _manifest(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], path: Path) -> dict[str, Any]:
    member = members.get(MANIFEST)
    file = archive.extractfile(member) if member is not None and member.size <= MAX_MANIFEST else None
    try:
        manifest = json.loads(file.read()) if file is not None else None
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or not isinstance(manifest.get("time"), str):
        manifest = {}
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(_is_entry(name, entry) for name, entry in files.items()):
        raise StationError(f"{path}: expected a backup of a station, got another tar file.")
    return dict(manifest)


def _is_entry(name: str, entry: Any) -> bool:
    known = isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and isinstance(entry.get("bytes"), int)
    return known and bool(Path(name).parts)


def _unpack(
    archive: tarfile.TarFile, member: tarfile.TarInfo | None, folder: Path, name: str, entry: Any, path: Path
) -> None:
    parts = Path(name).parts
    if parts[0] not in (JOURNAL, CATALOG, PICTURES) or ".." in parts or Path(name).is_absolute() or "\\" in name:
        raise StationError(f"{path}: expected files of a station, got {name!r}, which leads elsewhere.")
    file = archive.extractfile(member) if member is not None and member.isreg() else None
    if file is None:
        raise StationError(f"{path}: {name} is missing. The backup is damaged: take another one.")
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with place.open("xb") as target:
        for chunk in _chunks(file):
            digest.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    if digest.hexdigest() != entry["sha256"]:
        raise StationError(f"{path}: {name} is not what was written. The backup is damaged: take another one.")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _summary(manifest: dict[str, Any]) -> dict[str, Any]:
    files = manifest["files"]
    return {
        "time": manifest["time"],
        "products": sum(name.startswith(f"{CATALOG}/") and name.endswith(".fsad") for name in files),
        "pictures": sum(name.startswith(f"{PICTURES}/") for name in files),
        "bytes": sum(entry["bytes"] for entry in files.values()),
    }
