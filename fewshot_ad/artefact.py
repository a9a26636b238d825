"""The .fsad file: one product, one safetensors file, hashed, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from fewshot_ad.errors import ArtefactError, NotEnrolledError

FORMAT_VERSION = 1
_KEY = "fewshot_ad"
_NO_HASH = "0" * 64


def write_artefact(path: str | os.PathLike[str], tensors: dict[str, npt.NDArray[Any]], record: dict[str, Any]) -> None:
    """Write a product atomically: to a temporary file beside it, flushed to disk, then renamed.

    Args:
        path: The `.fsad` file; an older one is replaced only once the new one is whole on disk.
        tensors: Arrays by name.
        record: JSON-able description.

    Raises:
        ArtefactError: The file cannot be written; what was there before is untouched.
    """
    path = Path(path)
    # One metadata entry only: safetensors writes several in no fixed order.
    text = json.dumps({"format_version": FORMAT_VERSION, "sha256": _NO_HASH, **record}, sort_keys=True)
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    data = safetensors.numpy.save(contiguous, {_KEY: text})
    # The hash covers every byte of the file, itself taken as zeros.
    digest = hashlib.sha256(data).hexdigest()
    data = data.replace(_NO_HASH.encode(), digest.encode(), 1)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise ArtefactError(
            f"{path}: cannot be written ({error.strerror or error}); {len(data) / 1e6:.1f} MB are needed. Free some "
            "space or choose a folder you may write to. Nothing that was there before is changed."
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # Makes the rename itself survive a power cut. Windows cannot open folders and does not need it.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_artefact(path: str | os.PathLike[str]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read a product and check that no byte of it has changed.

    Returns:
        The arrays by name, and the description.

    Raises:
        NotEnrolledError: There is no such file.
        ArtefactError: It is no artefact, truncated, altered, or of a newer format.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotEnrolledError(
            f"expected an enrolled product at {path}, but there is no such file. Enroll it first: "
            f"fewshot-ad enroll GOOD_PHOTOGRAPHS -o {path.name}"
        ) from None
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read ({error.strerror}). Check the path and permissions.") from error
    record = _record(data, path)
    digest = str(record["sha256"])
    if hashlib.sha256(data.replace(digest.encode(), _NO_HASH.encode(), 1)).hexdigest() != digest:
        raise ArtefactError(
            f"{path}: the content does not match its own hash: the file was damaged or altered after it was written. "
            "Copy it again or enroll again."
        )
    version = record.get("format_version")
    if version != FORMAT_VERSION:
        raise ArtefactError(
            f"{path}: expected format version {FORMAT_VERSION}, got {version}. "
            "Update fewshot-ad (pip install -U fewshot-ad), or enroll again."
        )
    return dict(safetensors.numpy.load(data)), record


def _record(data: bytes, path: Path) -> dict[str, Any]:
    try:
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > len(data) - 8:
            raise ValueError(f"{len(data)} bytes are too few")
        header = json.loads(data[8 : 8 + length])
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        if len(data) != 8 + length + end:
            raise ValueError(f"expected {8 + length + end} bytes, got {len(data)}")
        safetensors.numpy.load(data)
        if _KEY not in header.get("__metadata__", {}):
            raise ValueError("a safetensors file, but not written by fewshot-ad")
        record: dict[str, Any] = json.loads(header["__metadata__"][_KEY])
        if len(record["sha256"]) != len(_NO_HASH):
            raise ValueError("its hash is not one")
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError, RecursionError) as error:
        raise ArtefactError(
            f"{path}: expected a whole .fsad file, got something else or a part of one ({error}). "
            "Copy it again or enroll again."
        ) from error
    return record
