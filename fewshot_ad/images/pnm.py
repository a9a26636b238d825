"""PBM, PGM and PPM (P1 to P6), as text and binary."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images.channels import row_blocks, to_rgb
from fewshot_ad.images.limits import AS_PNG, FEWER_BITS, check_memory, check_size, damaged, several

WHITE = b" \t\r\n\v\f"
COMMENT = re.compile(rb"#[^\r\n]*")
# A number has few digits: without this limit "P5 111..." of a megabyte takes long.
NUMBER = re.compile(rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])*(\d{1,10})(?=[ \t\r\n\v\f#])")
MAX_TEXT_BYTES = 64_000_000


@dataclass(frozen=True)
class Header:
    """What stands before the values.

    Attributes:
        kind: 1 to 6, of `P1` to `P6`.
        height: Rows.
        width: Columns.
        largest: The value that means white.
        start: Where the values begin.
    """

    kind: int
    height: int
    width: int
    largest: int
    start: int

    @property
    def is_bitmap(self) -> bool:
        """Whether the values are 0 (white) and 1 (black)."""
        return self.kind in (1, 4)

    @property
    def is_text(self) -> bool:
        """Whether the values are written as text."""
        return self.kind <= 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the values."""
        return self.height, self.width, 3 if self.kind in (3, 6) else 1


def decode(data: bytes) -> Uint8Array:
    """Decode a PBM, PGM or PPM file.

    Returns:
        (H, W, 3) uint8, RGB; the file's largest value is 255.

    Raises:
        ImageError: It is damaged, holds several images, or is too large.
    """
    header = _read_header(data)
    check_size(header.height, header.width)
    samples = header.height * header.width * header.shape[2]
    text = len(data) + samples * 9 if header.is_text else 0
    count = len(data) + text + samples * (1 if header.largest < 256 else 2) + 3 * header.height * header.width
    check_memory(count, AS_PNG if header.largest < 256 else FEWER_BITS)
    if header.is_bitmap:
        bits = _text_bits(data, header) if header.is_text else _binary_bits(data, header)
        return to_rgb(bits == 0)
    values = _text_values(data, header) if header.is_text else _binary_values(data, header)
    if int(values.max()) > header.largest:
        raise damaged(f"a value is larger than {header.largest}", header.height, header.width)
    return to_rgb(_scaled(values.reshape(header.shape), header.largest))


def _read_header(data: bytes) -> Header:
    kind = data[1] - ord("0")
    numbers: list[int] = []
    position = 2
    for _ in range(2 if kind in (1, 4) else 3):
        match = NUMBER.match(data, position)
        if match is None:
            raise damaged("its header does not give width, height and largest value")
        numbers.append(int(match[1]))
        position = match.end()
    width, height, largest = (*numbers, 1)[:3]
    if not 1 <= largest <= 65535:
        raise damaged(f"its largest value is {largest} instead of 1 to 65535")
    # Exactly one white byte stands between header and binary values; a comment may stand before it.
    comment = COMMENT.match(data, position)
    return Header(kind, height, width, largest, (comment.end() if comment else position) + 1)


def _text(data: bytes, header: Header, allowed: bytes) -> bytes:
    if len(data) > MAX_TEXT_BYTES:
        raise ImageError(
            f"expected a PNM file written as text of at most {MAX_TEXT_BYTES // 1_000_000} MB, got "
            f"{len(data) / 1e6:.0f} MB. Save it as PNG."
        )
    text = COMMENT.sub(b" ", data[header.start :])
    if text.translate(None, allowed + WHITE):
        raise damaged("its values are not numbers", header.height, header.width)
    return text


def _text_bits(data: bytes, header: Header) -> Uint8Array:
    digits = np.frombuffer(_text(data, header, b"01").translate(None, WHITE), np.uint8)
    return _exactly(digits, header).reshape(header.shape) - ord("0")


def _text_values(data: bytes, header: Header) -> npt.NDArray[Any]:
    text = _text(data, header, b"0123456789")
    return _exactly(np.fromstring(text, np.int64, sep=" "), header)  # type: ignore[call-overload]


def _exactly(values: npt.NDArray[Any], header: Header) -> npt.NDArray[Any]:
    count = header.height * header.width * header.shape[2]
    if values.size != count:
        raise damaged(f"it has {values.size} of {count} values", header.height, header.width)
    return values


def _binary_bits(data: bytes, header: Header) -> Uint8Array:
    row_bytes = (header.width + 7) // 8
    _check_length(data, header, header.height * row_bytes)
    rows = np.frombuffer(data, np.uint8, header.height * row_bytes, header.start).reshape(header.height, row_bytes)
    return np.unpackbits(rows, axis=1, count=header.width)


def _binary_values(data: bytes, header: Header) -> npt.NDArray[Any]:
    dtype = np.dtype(np.uint8 if header.largest < 256 else ">u2")
    count = header.height * header.width * header.shape[2]
    _check_length(data, header, count * dtype.itemsize)
    return np.frombuffer(data, dtype, count, header.start)


def _check_length(data: bytes, header: Header, needed: int) -> None:
    end = header.start + needed
    if len(data) < end:
        raise damaged(f"it has {len(data)} of {end} bytes", header.height, header.width)
    rest = data[end:].strip(WHITE + b"\0")
    if rest[:1] == b"P" and rest[1:2].isdigit():
        raise several("several, one behind the other", "Save each as a file.")
    if rest:
        raise damaged(f"{len(rest)} bytes follow its values", header.height, header.width)


def _scaled(values: npt.NDArray[Any], largest: int) -> npt.NDArray[Any]:
    """The values with white at the top of their type; as they are if it stands there already."""
    if largest in (255, 65535):
        # A copy: the file's bytes cannot be written to.
        return values.astype(np.uint8 if largest == 255 else np.uint16)
    scaled = np.empty(values.shape, np.uint8)
    for rows in row_blocks(*values.shape[:2]):
        scaled[rows] = (values[rows].astype(np.uint32) * 255 + largest // 2) // largest
    return scaled
