"""The directories of a TIFF file: what each page says of itself."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_ad.images.limits import damaged

# TIFF's integer types -> numpy's.
INTEGERS = {
    1: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8", 2: "u1",
}  # fmt: skip
MAX_ENTRIES = 4096
DESCRIPTION, STACK = 270, 33629
IMAGEJ_PAGES = re.compile(rb"ImageJ=.*?\nimages=(\d{1,9})\b", re.DOTALL)
TRUNCATED_PAGES = re.compile(rb'"truncated": true')


@dataclass(frozen=True)
class Tags:
    """One directory.

    Attributes:
        data: The file.
        order: `<` or `>`.
        big: Whether it is a BigTIFF.
        entries: Tag -> its type, number of values, and where its value field stands in the file.
    """

    data: bytes
    order: str
    big: bool
    entries: dict[int, tuple[int, int, int]]

    def numbers(self, tag: int) -> npt.NDArray[Any]:
        """The integers of a tag; empty if it is missing.

        Raises:
            ImageError: They are no integers or stand outside the file.
        """
        if tag not in self.entries:
            return np.zeros(0, np.int64)
        kind, count, field = self.entries[tag]
        if kind not in INTEGERS:
            raise damaged(f"its tag {tag} has type {kind} instead of an integer")
        dtype = np.dtype(self.order + INTEGERS[kind])
        if dtype.itemsize * count > (8 if self.big else 4):
            (field,) = struct.unpack_from(self.order + ("Q" if self.big else "I"), self.data, field)
        if field + dtype.itemsize * count > len(self.data):
            raise damaged(f"the values of its tag {tag} stand outside the file")
        return np.frombuffer(self.data, dtype, count, field)

    def number(self, tag: int, default: int) -> int:
        """The first integer of a tag."""
        values = self.numbers(tag)
        return int(values[0]) if len(values) else default

    def hidden_pages(self) -> int:
        """Number of pages that have no directory of their own, as microscopes' programs write them; 1 if none does."""
        text = self.numbers(DESCRIPTION).tobytes()[:10_000]
        match = IMAGEJ_PAGES.match(text)
        if match:
            return int(match[1])
        if TRUNCATED_PAGES.search(text):
            return 2
        return self.entries[STACK][1] if STACK in self.entries else 1


def walk_pages(data: bytes) -> Iterator[Tags]:
    """The directories of a file, one after the other.

    Raises:
        ImageError: The chain leads out of the file or in a circle.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    seen: set[int] = set()
    while offset:
        if offset in seen or offset >= len(data):
            raise damaged("its chain of pages leads in a circle" if offset in seen else "it breaks off before a page")
        seen.add(offset)
        entries, after = _entries(data, offset, order, big)
        yield Tags(data, order, big, entries)
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, after)


def _entries(data: bytes, offset: int, order: str, big: bool) -> tuple[dict[int, tuple[int, int, int]], int]:
    """The entries of the directory at an offset, and where the offset of the next one stands."""
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    start, step, counts = (offset + 8, 20, "Q") if big else (offset + 2, 12, "I")
    if count > MAX_ENTRIES or start + count * step > len(data):
        raise damaged("a directory of it breaks off or has too many entries")
    entries: dict[int, tuple[int, int, int]] = {}
    for position in range(start, start + count * step, step):
        tag, kind, values = struct.unpack_from(order + "HH" + counts, data, position)
        entries.setdefault(tag, (kind, values, position + step - (8 if big else 4)))
    return entries, start + count * step
