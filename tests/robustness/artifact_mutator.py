"""Makes broken products of a whole one: changed bytes, fields, arrays, and hashes that are right again."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

KEY = "fewshot_ad"
NO_HASH = "0" * 64


class Deep(list):
    """Stands for a value nested more deeply than `json.dumps` can write."""


class Raw(str):
    """A text that stands in the JSON as it is, such as NaN or 1e999."""


DEPTH = 50_000
NASTY: tuple[Any, ...] = (
    *(Raw(text) for text in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-400", "9" * 4000)),
    *(-1, 0, 1, 2, 3, 2**31, 2**63, 2**64, -(2**63), 10**30, 4096, 1e308, -1e308, 1e-308, 5e-324, 1e30, 0.5, -0.0),
    *(True, False, None, "", "a", "NaN", "0", "x" * 10_000, "hf-hub:timm/resnet18", "/etc/passwd", "../../card.json"),
    *("vit_giant_patch14_dinov2", "\x1b[31m\n", "\x00", "\ud800", "0" * 64, "f" * 64),
    *([], {}, [[]], [None], [{}], {"a": 1}, [1, 2], [1e308], [0.0] * 1000, Deep()),
)
TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "|i1", "I32": "<i4", "I64": "<i8", "U8": "|u1", "BOOL": "|b1"}


def mutations(data: bytes, rng: np.random.Generator, repair: bool = True) -> bytes:
    """A broken copy of a product.

    Args:
        data: A whole `.fsad` file.
        rng: Decides what is broken; the same state gives the same copy.
        repair: Whether the hash is made right again, so that the file is read beyond it.

    Returns:
        The bytes of the copy.
    """
    header, record, tensors = taken_apart(data)
    change: Callable[..., bytes] = [_fields, _fields, _fields, _tensors, _tensors, _header, _bytes][rng.integers(7)]
    return change(data, header, record, tensors, rng, repair)


def taken_apart(data: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """The header without the description, the description, and the bytes of each array."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    record = json.loads(header.pop("__metadata__")[KEY])
    start = 8 + length
    tensors = {name: data[start + e["data_offsets"][0] : start + e["data_offsets"][1]] for name, e in header.items()}
    return header, record, tensors


def put_together(
    header: dict[str, Any], record: object, tensors: dict[str, bytes], repair: bool = True, twice: str = ""
) -> bytes:
    """A file of these parts; the inverse of `taken_apart` where they fit.

    Args:
        header: What is said of each array; its place is said anew unless the array is missing.
        record: The description.
        tensors: The bytes of the arrays.
        repair: Whether the hash is made right.
        twice: JSON text of a further field, put before the others.
    """
    if isinstance(record, dict) and repair:
        record = {**record, "sha256": NO_HASH}
    text = _json(record)
    text = text[0] + twice + text[1:] if twice else text
    entries: dict[str, Any] = {"__metadata__": {KEY: text}}
    body = b""
    # As safetensors writes them: without gaps.
    for name, entry in header.items():
        content = tensors.get(name)
        if content is None or not isinstance(entry, dict):
            entries[name] = entry
            continue
        entries[name] = {**entry, "data_offsets": [len(body), len(body) + len(content)]}
        body += content
    head = _json(entries).encode("utf-8", "surrogatepass")
    head += b" " * (-len(head) % 8)
    data = struct.pack("<Q", len(head)) + head + body
    at = data.rfind(NO_HASH.encode(), 0, 8 + len(head))
    if repair and at >= 0:
        data = data[:at] + hashlib.sha256(data).hexdigest().encode() + data[at + 64 :]
    return data


def _json(value: object) -> str:
    if isinstance(value, Deep):
        return "[" * DEPTH + "]" * DEPTH
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {_json(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_json(item) for item in value) + "]"
    return json.dumps(value)


def places(value: object, path: tuple[int | str, ...] = ()) -> list[tuple[int | str, ...]]:
    """Where there is a value in nested JSON, one path each."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def replaced(value: Any, path: tuple[int | str, ...], new: Any) -> Any:
    """Nested JSON with another value at one place."""
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return changed


def _pick(items: Any, rng: np.random.Generator) -> Any:
    return items[int(rng.integers(len(items)))]


def _fields(data: bytes, header: Any, record: Any, tensors: Any, rng: np.random.Generator, repair: bool) -> bytes:
    """Some fields of the description: another value, missing, added, renamed, moved, repeated."""
    twice = ""
    for _ in range(int(rng.integers(1, 3))):
        # A deeper place is not likelier than a field at the top.
        path = _pick(places(record) if rng.random() < 0.7 else [(name,) for name in record], rng)
        kind = rng.random()
        inner = record
        for key in path[:-1]:
            inner = inner[key]
        if kind < 0.65:
            record = replaced(record, path, _pick(NASTY, rng))
        elif kind < 0.75:
            value = inner[path[-1]]
            scaled = value * _pick((-1, 0, 10, 1e6, 1e40), rng) if type(value) in (int, float) else _pick(NASTY, rng)
            record = replaced(record, path, scaled)
        elif kind < 0.85:
            record = copy.deepcopy(record)
            inner = record
            for key in path[:-1]:
                inner = inner[key]
            del inner[path[-1]]
        elif kind < 0.95:
            record = {**record, _pick(("extra", "__class__", "threshold ", ""), rng): _pick(NASTY, rng)}
        else:
            twice = f"{json.dumps(str(path[0]))}: {_json(_pick(NASTY, rng))}, "
    return put_together(header, record, tensors, repair, twice)


def _tensors(data: bytes, header: Any, record: Any, tensors: Any, rng: np.random.Generator, repair: bool) -> bytes:
    """One array: other values, type or shape, missing, added, renamed, or another picture."""
    header, tensors = copy.deepcopy(header), dict(tensors)
    name = _pick(sorted(header), rng)
    entry = header[name]
    kind = int(rng.integers(8))
    if kind == 0:
        array = np.frombuffer(tensors[name], TYPES[entry["dtype"]]).copy()
        with np.errstate(over="ignore", invalid="ignore"):
            array[int(rng.integers(len(array)))] = (
                _pick((np.nan, np.inf, -np.inf, 6e4, 1e38), rng) if array.dtype.kind == "f" else _pick((255, 0, 7), rng)
            )
            if array.dtype.kind == "i":
                array[0] = _pick((-1, 2**31 - 1, -(2**31), 1000), rng)
        tensors[name] = array.tobytes()
    elif kind == 1:
        dtype = _pick(sorted(TYPES), rng)
        count = int(np.prod(entry["shape"]))
        tensors[name] = np.zeros(count, TYPES[dtype]).tobytes()
        header[name] = {**entry, "dtype": dtype}
    elif kind == 2:
        header[name] = {**entry, "shape": _pick(([], [0], [1], [1, 1, 1], entry["shape"][::-1]), rng)}
    elif kind == 3:
        shape = [entry["shape"][0] // 2, *entry["shape"][1:]]
        header[name] = {**entry, "shape": shape}
        tensors[name] = tensors[name][: len(tensors[name]) // entry["shape"][0] * shape[0]]
    elif kind == 4:
        del header[name], tensors[name]
    elif kind == 5:
        header["extra"] = header[name]
        tensors["extra"] = tensors[name]
    elif kind == 6:
        content = bytearray(tensors[name])
        for at in rng.integers(len(content), size=20):
            content[at] = int(rng.integers(256))
        tensors[name] = bytes(content)
    else:
        picture = _pick(
            (png(30_000, 30_000), png(16, 16), png(128, 128, b"\x00" * 50), b"\x89PNG\r\n\x1a\n", b"x"), rng
        )
        name = next((n for n in header if n.startswith("reference")), name)
        header[name] = {"dtype": "U8", "shape": [len(picture)]}
        tensors[name] = picture
    return put_together(header, record, tensors, repair)


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG file whose header says a size, whatever its pixels say."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _header(data: bytes, header: Any, record: Any, tensors: Any, rng: np.random.Generator, repair: bool) -> bytes:
    """What the file says of an array, or the description as a whole, is something else."""
    if rng.random() < 0.3:
        return put_together(header, _pick(NASTY, rng), tensors, repair)
    header = copy.deepcopy(header)
    name = _pick(sorted(header), rng)
    field = _pick(("dtype", "shape", "data_offsets"), rng)
    header[name] = _pick(NASTY, rng) if rng.random() < 0.3 else {**header[name], field: _pick(NASTY, rng)}
    # Offsets stay as they are said only where the array is not laid out anew.
    return put_together(header, record, {n: c for n, c in tensors.items() if n != name}, repair)


def _bytes(data: bytes, header: Any, record: Any, tensors: Any, rng: np.random.Generator, repair: bool) -> bytes:
    """Bytes changed, cut off or added anywhere, most of them in the header."""
    changed = bytearray(data)
    length = 8 + int.from_bytes(data[:8], "little")
    kind = int(rng.integers(4))
    if kind == 0:
        return bytes(changed[: int(rng.integers(len(changed)))])
    if kind == 1:
        return bytes(changed) + bytes(rng.integers(256, size=int(rng.integers(1, 100)), dtype=np.uint8))
    for at in rng.integers(length if kind == 2 else len(changed), size=int(rng.integers(1, 5))):
        changed[at] = int(rng.integers(256))
    digest = record["sha256"].encode()
    at = bytes(changed).find(digest)
    if repair and at >= 0:
        changed[at : at + 64] = NO_HASH.encode()
        changed[at : at + 64] = hashlib.sha256(changed).hexdigest().encode()
    return bytes(changed)
