"""The .fsad file: one product, one safetensors file, hashed, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from fewshot_ad import arguments
from fewshot_ad.artifact.arrays import ArrayForm, check_forms, check_values
from fewshot_ad.artifact.former import from_version_1, from_version_2
from fewshot_ad.artifact.schema import FORMAT_VERSION, checked_description, shown
from fewshot_ad.errors import ArtifactError, NotEnrolledError
from fewshot_ad.images import format_of
from fewshot_ad.storage import write_atomically, write_failure

# More than any product has, and little enough to be read at once.
MAX_FILE_BYTES = 1 << 30
MAX_HEADER_BYTES = 1 << 22
# Of one JSON object; each wrong one would have its own message.
MAX_FIELDS = 10_000
KEY = "fewshot_ad"
_NO_HASH = "0" * 64


def write_artifact(path: str | os.PathLike[str], tensors: dict[str, npt.NDArray[Any]], record: dict[str, Any]) -> str:
    """Write a product, whole or not at all; see `storage.write_atomically`.

    Args:
        path: The `.fsad` file; an older one is replaced only once the new one is whole on disk.
        tensors: Arrays by name.
        record: JSON-able description.

    Returns:
        The SHA-256 hash that the file bears, in hexadecimal.

    Raises:
        ArtifactError: The file cannot be written; what was there before is untouched.
    """
    # One metadata entry only: safetensors writes several in no fixed order.
    text = json.dumps({"format_version": FORMAT_VERSION, "sha256": _NO_HASH, **record}, sort_keys=True)
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    data = safetensors.numpy.save(contiguous, {KEY: text})
    header_bytes = 8 + int.from_bytes(data[:8], "little")
    if len(data) > MAX_FILE_BYTES or header_bytes > MAX_HEADER_BYTES:
        raise ArtifactError(
            f"{path}: expected a product of at most {MAX_FILE_BYTES >> 20} MiB with a description of at most "
            f"{MAX_HEADER_BYTES >> 20} MiB, got {len(data) >> 20} and {header_bytes >> 20}. Enroll with a smaller "
            "budget or from fewer images."
        )
    # The hash covers every byte of the file, itself taken as zeros. The last of its kind is it: the fields are sorted,
    # and behind it there is no other text.
    digest = hashlib.sha256(data).hexdigest()
    at = data.rindex(_NO_HASH.encode(), 0, header_bytes)
    data = data[:at] + digest.encode() + data[at + len(digest) :]
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ArtifactError(
            f"{write_failure(path, error, len(data))} Nothing that was there before is changed."
        ) from error
    return digest


def read_artifact(path: str | os.PathLike[str]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read a product and check that no byte of it has changed, and every field and array before it is used.

    Args:
        path: The `.fsad` file, at most `MAX_FILE_BYTES` large.

    Returns:
        The arrays by name, and the description as plain JSON types.

    Raises:
        NotEnrolledError: There is no such file.
        ArtifactError: It is no artifact, truncated, altered, of another format, or a field or array of it is not what
            it must be; the message names it.
    """
    path = Path(arguments.file_name(path, "path", ArtifactError))
    data = _content(path)
    forms, record = _header(data, path)
    _check_hash(data, record, path)
    description = checked_description(_current(record, path), path)
    check_forms(forms, description, path)
    try:
        tensors = dict(safetensors.numpy.load(data))
    except SafetensorError as error:
        raise _not_whole(path, error) from error
    check_values(tensors, description, path)
    return tensors, description


def _content(path: Path) -> bytes:
    """The bytes of a file, after a look at what it is and how large."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ArtifactError(f"{path}: expected a product's file, got a folder. Name the .fsad file itself.")
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{path}: expected a product's file, got a pipe, socket or device. Name a .fsad file.")
        with path.open("rb") as file:
            # No more than it had at the look: it may be growing.
            data = file.read(status.st_size) if status.st_size <= MAX_FILE_BYTES else None
    except FileNotFoundError:
        # A name without a suffix may be that of a baseline's folder.
        other = "" if path.suffix else f", or fit a baseline: fewshot-ad fit METHOD GOOD_IMAGES -o {path.name}"
        raise NotEnrolledError(
            f"expected an enrolled product at {path}, but there is no such file. Enroll it first: "
            f"fewshot-ad enroll GOOD_IMAGES -o {path.name if path.suffix else f'{path.name}.fsad'}{other}"
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}). Check the path and permissions.") from error
    if data is None:
        raise ArtifactError(
            f"{path}: expected a product of at most {MAX_FILE_BYTES >> 20} MiB, got {status.st_size >> 20} MiB. "
            "This is no .fsad file, or a damaged one. Check the path, or enroll again."
        )
    return data


def _header(data: bytes, path: Path) -> tuple[dict[str, ArrayForm], dict[str, Any]]:
    """What the header says of the arrays, and the description as it stands there."""
    try:
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > len(data) - 8:
            raise ValueError(f"{len(data)} bytes are too few")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {length >> 20} MiB")
        header = _json(data[8 : 8 + length].decode())
        texts = header.pop("__metadata__", None)
        forms = TypeAdapter(dict[str, ArrayForm]).validate_python(header)
        end = max((form.data_offsets[1] for form in forms.values()), default=0)
        if len(data) != 8 + length + end:
            raise ValueError(f"expected {8 + length + end} bytes, got {len(data)}")
        if not (isinstance(texts, dict) and isinstance(texts.get(KEY), str)):
            raise ValueError("a safetensors file, but not written by fewshot-ad")
        return forms, _json(texts[KEY])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _not_whole(path, f"array {shown(first['loc'][0])}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        if format_of(data) is not None:
            raise ArtifactError(
                f"{path}: expected a product (.fsad), got an image. Name the file that `fewshot-ad enroll` wrote; "
                "images come after it."
            ) from None
        raise _not_whole(path, error) from None


def _json(text: str) -> dict[str, Any]:
    """An object in strict JSON: no name twice, no NaN or Infinity."""
    fields = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    if not isinstance(fields, dict):
        raise ValueError(f"expected a JSON object, got {shown(fields)}")
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(pairs) > MAX_FIELDS:
        raise ValueError(f"an object of {len(pairs)} fields")
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {shown(next(name for name in names if names.count(name) > 1))} stands there twice")
    return fields


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _not_whole(path: Path, reason: object) -> ArtifactError:
    return ArtifactError(
        f"{path}: expected a whole .fsad file, got something else or a part of one ({reason}). "
        "Copy it again or enroll again."
    )


def _check_hash(data: bytes, record: dict[str, Any], path: Path) -> None:
    digest = record.get("sha256")
    if not (isinstance(digest, str) and len(digest) == len(_NO_HASH) and digest.isalnum() and digest.isascii()):
        raise _not_whole(path, f"its hash is not one: {shown(digest)}")
    at, view = data.find(digest.encode()), memoryview(data)
    # In pieces: a copy with the hash taken out would double the memory.
    actual = hashlib.sha256(view[: max(0, at)])
    actual.update(_NO_HASH.encode())
    actual.update(view[at + len(digest) :])
    if at < 0 or actual.hexdigest() != digest:
        raise ArtifactError(
            f"{path}: the content does not match its own hash: the file was damaged or altered after it was written. "
            "Copy it again or enroll again."
        )


def _current(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """The description in today's format."""
    version = record.get("format_version")
    if type(version) is int and version == FORMAT_VERSION:
        return record
    if type(version) is int and version == 1:
        return from_version_2(from_version_1(record, path), path)
    if type(version) is int and version == 2:
        return from_version_2(record, path)
    if type(version) is not int:
        advice = "This is no version. Copy the file again, or enroll again."
    elif version > FORMAT_VERSION:
        advice = "The file is newer. Update fewshot-ad (pip install -U fewshot-ad), or enroll again."
    else:
        advice = "The file is older than what this version of fewshot-ad reads: enroll again."
    raise ArtifactError(f"{path}: expected format version {FORMAT_VERSION}, got {shown(version)}. {advice}")
