"""One strip or tile of a TIFF file: bytes -> samples, or an error if any is missing."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.errors import ImageError
from fewshot_ad.images import jpeg
from fewshot_ad.images.limits import damaged
from fewshot_ad.images.tiff.layout import (
    DEFLATE,
    GRAY,
    JPEG,
    LZMA,
    LZW,
    NONE,
    OLD_DEFLATE,
    PACKBITS,
    RGB,
    WEBP,
    ZSTD,
    Layout,
)

REFUSED = {
    2: "CCITT compression",
    3: "CCITT compression",
    4: "CCITT compression",
    6: "old-style JPEG compression",
    33003: "JPEG 2000 compression, whose decoder cannot tell a damaged file from a whole one",
    33004: "JPEG 2000 compression, whose decoder cannot tell a damaged file from a whole one",
    33005: "JPEG 2000 compression, whose decoder cannot tell a damaged file from a whole one",
    34712: "JPEG 2000 compression, whose decoder cannot tell a damaged file from a whole one",
    34661: "JBIG compression",
    34887: "LERC compression",
    34892: "lossy JPEG compression of raw values",
    50002: "JPEG XL compression",
    52546: "JPEG XL compression",
}
REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
# Of each first byte of a run: how many bytes it takes packed, and how many unpacked.
PACKBITS_STEPS = (
    *((2 + head, 1 + head) for head in range(128)),
    (1, 0),
    *((2, 257 - head) for head in range(129, 256)),
)
LZMA_MEMORY = 256_000_000
# Sides that OpenCV reads.
MAX_SIDE = 1 << 20


def copies(layout: Layout) -> int:
    """How many times a segment's samples lie in memory while it is read."""
    if layout.compression == NONE:
        return 1 if layout.predictor > 1 or layout.bits < 8 else 0
    # OpenCV holds a copy of its own.
    unpacked = 3 if layout.compression in (LZW, PACKBITS) else 2
    return unpacked + (layout.predictor > 1) + (8 // layout.bits if layout.bits < 8 else 0)


def read_segments(data: bytes, layout: Layout, indices: list[int]) -> npt.NDArray[Any]:
    """Read some segments.

    Args:
        data: The file.
        layout: Of the page.
        indices: Of the segments.

    Returns:
        (h, w, C): their samples, one segment below the other, as integers or floats.

    Raises:
        ImageError: One is missing, short, damaged, or compressed in a way that is not read.
    """
    packed = [_packed(data, layout, index) for index in indices]
    rows = [layout.rows_of(index) for index in indices]
    if layout.compression in (JPEG, WEBP):
        samples = (_jpeg if layout.compression == JPEG else _webp)(packed[0], layout)
        if samples.shape[0] < rows[0] or samples.shape[1:] != (layout.segment_hw[1], layout.segment_samples):
            raise damaged("a strip or tile has another size", layout.height, layout.width)
        return samples[: rows[0]]
    if layout.compression in (LZW, PACKBITS):
        if layout.compression == PACKBITS:
            for one, height in zip(packed, rows, strict=True):
                _check_packbits(one, height * layout.row_bytes, layout)
        content = _by_opencv(packed, layout.compression, rows, layout.row_bytes)
    elif layout.compression in UNPACK:
        content = _joined([UNPACK[layout.compression](one, layout.segment_bytes) for one in packed], rows, layout)
    else:
        what = REFUSED.get(layout.compression, f"compression {layout.compression}")
        raise ImageError(f"expected a TIFF without compression, or LZW, Deflate or JPEG, got {what}. Save it so.")
    return _samples(np.frombuffer(content, np.uint8).reshape(sum(rows), layout.row_bytes), layout)


def _packed(data: bytes, layout: Layout, index: int) -> memoryview:
    start, count = int(layout.offsets[index]), int(layout.counts[index])
    if start < 0 or count < 1 or start + count > len(data):
        raise damaged(f"strip or tile {index} is missing or breaks off", layout.height, layout.width)
    packed = memoryview(data)[start : start + count]
    return memoryview(bytes(packed).translate(REVERSED)) if layout.reversed_bits else packed


def _joined(contents: list[bytes | memoryview], rows: list[int], layout: Layout) -> bytes | memoryview:
    for content, height in zip(contents, rows, strict=True):
        if len(content) < height * layout.row_bytes:
            raise damaged(
                f"a strip or tile has {len(content)} of {height * layout.row_bytes} bytes", layout.height, layout.width
            )
    # Some writers fill the last strip up to the height of the others.
    parts = [memoryview(content)[: height * layout.row_bytes] for content, height in zip(contents, rows, strict=True)]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _samples(rows: npt.NDArray[np.uint8], layout: Layout) -> npt.NDArray[Any]:
    shape = (len(rows), layout.segment_hw[1], layout.segment_samples)
    if layout.bits < 8:
        bits = np.unpackbits(rows, axis=1)[:, : shape[1] * shape[2] * layout.bits]
        if layout.bits == 1:
            return bits.reshape(shape)
        grouped = bits.reshape(len(rows), -1, layout.bits)
        return np.packbits(grouped, axis=2).reshape(shape) >> np.uint8(8 - layout.bits)
    size = layout.bits // 8
    if layout.predictor == 3:
        # The bytes of a row's floats stand sorted, the highest of all first, as differences.
        summed = np.cumsum(rows.reshape(len(rows), -1, shape[2]), axis=1, dtype=np.uint8)
        floats = summed.reshape(len(rows), size, -1).transpose(0, 2, 1)
        return np.ascontiguousarray(floats).view(f">f{size}").reshape(shape)
    if layout.predictor == 2:
        stored = rows.view(f"{layout.order}u{size}").reshape(shape)
        rows = np.cumsum(stored, axis=1, dtype=f"=u{size}")
        return rows.view(f"=f{size}") if layout.is_float else rows
    return rows.view(f"{layout.order}{'f' if layout.is_float else 'u'}{size}").reshape(shape)


def _jpeg(packed: memoryview, layout: Layout) -> npt.NDArray[Any]:
    tables = layout.jpeg_tables
    is_gray = layout.segment_samples == 1
    # Without Adobe's marker a decoder guesses from the names of the components whether they are RGB.
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + (b"\0" if layout.photometric == RGB else b"\1")
    # The tables are a JPEG of their own without an image: its end and the segment's start are left out.
    start = tables[2:-2] if tables[:2] == b"\xff\xd8" else b""
    stream = b"".join((b"\xff\xd8", b"" if is_gray else adobe, start, packed[2:]))
    header = jpeg.read_header(stream)
    size = header.height, header.width, len(header.sampling)
    if size[0] > layout.segment_hw[0] or size[1:] != (layout.segment_hw[1], layout.segment_samples):
        raise damaged("a strip or tile has another size", layout.height, layout.width)
    return jpeg.decode_samples(stream, header, "GRAY" if is_gray else "RGB")


def _none(packed: memoryview, most: int) -> memoryview:
    return packed


def _deflate(packed: memoryview, most: int) -> bytes:
    stream = zlib.decompressobj()
    content = stream.decompress(packed, most + 1)
    # The end holds the checksum, which is compared on the way.
    if not stream.eof and len(content) <= most:
        content += stream.decompress(stream.unconsumed_tail, 1)
    if not stream.eof:
        raise damaged("a strip or tile ends early or is longer than it may be")
    return content


def _lzma(packed: memoryview, most: int) -> bytes:
    try:
        import lzma
    except ImportError as error:  # a Python that was built without it
        raise ImageError("expected a TIFF that this Python can unpack, got LZMA. Save it with Deflate.") from error
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY)
    try:
        content = stream.decompress(packed, most + 1)
    except lzma.LZMAError as error:
        raise damaged(f"a strip or tile cannot be unpacked: {error}") from error
    if not stream.eof:
        raise damaged("a strip or tile ends early or is longer than it may be")
    return content


def _zstd(packed: memoryview, most: int) -> bytes:
    codecs = _imagecodecs("ZSTD")
    try:
        return bytes(codecs.zstd_decode(packed, out=most + 1))
    except Exception as error:  # the codec's own class
        raise damaged(f"a strip or tile cannot be unpacked: {error}") from error


def _webp(packed: memoryview, layout: Layout) -> npt.NDArray[Any]:
    codecs = _imagecodecs("WebP")
    try:
        return np.asarray(codecs.webp_decode(packed, hasalpha=layout.samples == 4))
    except Exception as error:  # the codec's own class
        raise damaged(f"a strip or tile cannot be unpacked: {error}") from error


def _imagecodecs(name: str) -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise ImageError(
            f"expected a TIFF without compression, or LZW, Deflate or JPEG, got {name} compression. "
            "Install it: pip install 'fewshot-ad[tiff]'."
        ) from error
    return imagecodecs


def _check_packbits(packed: memoryview, count: int, layout: Layout) -> None:
    """Refuse runs that do not fill a strip or tile exactly: the decoder would cut them and only print a warning."""
    position = unpacked = 0
    end = len(packed)
    for_header = PACKBITS_STEPS
    while position < end:
        step, length = for_header[packed[position]]
        position += step
        unpacked += length
        if unpacked == count and end - position <= 1:  # some writers fill up to an even number of bytes
            return
    # Some writers fill the last strip up to the height of the others.
    if position != end or unpacked != layout.segment_bytes or unpacked < count:
        raise damaged(f"a strip or tile has {unpacked} of {count} bytes", layout.height, layout.width)


def _by_opencv(packed: list[memoryview], compression: int, rows: list[int], row_bytes: int) -> bytes | memoryview:
    """Unpack by OpenCV's TIFF reader: as 16-bit gray, the one layout in which it says of any missing byte."""
    strips: list[bytes | memoryview] = [*packed]
    if row_bytes % 2 and any(height % 2 for height in rows):
        if len(rows) > 1:
            return b"".join(
                _by_opencv([one], compression, [height], row_bytes) for one, height in zip(packed, rows, strict=True)
            )
        # An odd number of bytes: one row of zeros is put before them.
        zeros = _lzw_zeros(row_bytes) if compression == LZW else _packbits_zeros(row_bytes)
        strips = [zeros + bytes(packed[0])]
        added, rows = row_bytes, [rows[0] + 1]
    else:
        added = 0
    height, width, step = sum(rows), row_bytes // 2, rows[0]
    if row_bytes % 2:
        height, width, step = height // 2, row_bytes, step // 2
    if max(height, width) > MAX_SIDE:
        raise ImageError(f"expected rows of at most {MAX_SIDE} bytes, got {row_bytes}. Save it without compression.")
    file = _gray_tiff(strips, compression, height, width, step)
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape != (height, width) or pixels.dtype != np.uint16:
        raise damaged("a strip or tile ends early or cannot be unpacked")
    return memoryview(pixels.astype("<u2", copy=False).reshape(-1).view(np.uint8))[added:]


def _gray_tiff(strips: list[bytes | memoryview], compression: int, height: int, width: int, step: int) -> bytes:
    """A TIFF file of 16-bit gray in strips of `step` rows."""
    lengths = [len(strip) for strip in strips]
    # Places and lengths stand behind the directory of 9 entries; a single one stands in its entry.
    lists_at = 8 + 2 + 9 * 12 + 4
    lists_bytes = 8 * len(strips) if len(strips) > 1 else 0
    places = list(accumulate(lengths[:-1], initial=lists_at + lists_bytes))
    lists = (places[0], lengths[0]) if len(strips) == 1 else (lists_at, lists_at + 4 * len(strips))
    tags = (
        (256, 1, width), (257, 1, height), (258, 1, 16), (259, 1, compression), (262, 1, GRAY[1]),
        (273, len(strips), lists[0]), (277, 1, 1), (278, 1, step), (279, len(strips), lists[1]),
    )  # fmt: skip
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    directory = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in tags) + b"\0\0\0\0"
    values = np.array(places + lengths, "<u4").tobytes() if len(strips) > 1 else b""
    return b"".join((head, directory, values, *strips))


def _lzw_zeros(count: int) -> bytes:
    """LZW of zeros, whole bytes long: eight codes of 9 bits, "clear" before zeros."""

    def eight(zeros: int) -> bytes:
        codes = [256] * (8 - zeros) + [0] * zeros
        return int("".join(f"{code:09b}" for code in codes), 2).to_bytes(9, "big")

    return eight(7) * (count // 7) + (eight(count % 7) if count % 7 else b"")


def _packbits_zeros(count: int) -> bytes:
    """PackBits of zeros: runs of up to 128."""
    rest = count % 128
    return b"\x81\0" * (count // 128) + (bytes([(257 - rest) % 256, 0]) if rest else b"")


UNPACK: dict[int, Callable[[memoryview, int], bytes | memoryview]] = {
    NONE: _none,
    DEFLATE: _deflate,
    OLD_DEFLATE: _deflate,
    LZMA: _lzma,
    ZSTD: _zstd,
}
