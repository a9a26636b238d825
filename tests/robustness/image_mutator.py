"""Damages an encoded image the way cables, disks and attackers do."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np

NASTY = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
# Most formats state their size and layout within the first bytes.
HEADER = 96


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One to three damages of a file.

    Args:
        data: The file.
        other: Another file, to splice with.
        rng: Decides everything.
    """
    damaged = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        damage = DAMAGES[int(rng.integers(len(DAMAGES)))]
        damaged = damage(damaged, other, rng)
    # Behind the checksums lies the decoder: half of the damaged PNG files get right ones again.
    return _with_checksums(bytes(damaged)) if rng.random() < 0.5 else bytes(damaged)


def _place(data: bytearray, rng: np.random.Generator) -> int:
    return int(rng.integers(max(1, len(data))))


def _flip(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    if data:
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return data


def _header(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    """A nasty number among the first bytes."""
    size = int(rng.choice([1, 2, 4]))
    at = int(rng.integers(HEADER))
    value = NASTY[int(rng.integers(len(NASTY)))] & (256**size - 1)
    data[at : at + size] = value.to_bytes(size, "big" if rng.random() < 0.5 else "little")
    return data


def _anywhere(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    """A nasty number anywhere: TIFF keeps its directory at the end."""
    at = _place(data, rng)
    data[at : at + 4] = struct.pack("<I" if rng.random() < 0.5 else ">I", NASTY[int(rng.integers(len(NASTY)))])
    return data


def _cut(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    return data[: _place(data, rng)]


def _hole(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    """A disk block of zeros or of something else."""
    at, size = _place(data, rng), int(rng.choice([16, 512, 4096]))
    size = min(size, len(data) - at)
    data[at : at + size] = bytes(size) if rng.random() < 0.5 else rng.bytes(size)
    return data


def _insert(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    at = _place(data, rng)
    data[at:at] = rng.bytes(int(rng.integers(1, 64)))
    return data


def _drop(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    at = _place(data, rng)
    del data[at : at + int(rng.integers(1, 64))]
    return data


def _repeat(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    at = _place(data, rng)
    return data + data[at:]


def _splice(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    return data[: _place(data, rng)] + bytearray(other[_place(bytearray(other), rng) :])


DAMAGES: tuple[Callable[[bytearray, bytes, np.random.Generator], bytearray], ...] = (
    _flip,
    _header,
    _anywhere,
    _cut,
    _hole,
    _insert,
    _drop,
    _repeat,
    _splice,
)


def _with_checksums(data: bytes) -> bytes:
    """A PNG file with the checksum of each chunk made right; anything else as it is."""
    if data[:4] != b"\x89PNG":
        return data
    repaired, at = bytearray(data), 8
    while at + 12 <= len(repaired):
        length = int.from_bytes(repaired[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(repaired):
            break
        repaired[end : end + 4] = zlib.crc32(repaired[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(repaired)
