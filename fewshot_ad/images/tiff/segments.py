"""One strip or tile of a TIFF file: bytes -> samples, or an error if any is missing."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable
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


def read_segment(data: bytes, layout: Layout, index: int) -> npt.NDArray[Any]:
    """Read a segment.

    Args:
        data: The file.
        layout: Of the page.
        index: Of the segment.

    Returns:
        (h, w, C): its samples, as integers or floats.

    Raises:
        ImageError: It is missing, short, damaged, or compressed in a way that is not read.
    """
    start, count = int(layout.offsets[index]), int(layout.counts[index])
    if start < 0 or count < 1 or start + count > len(data):
        raise damaged(f"strip or tile {index} is missing or breaks off", layout.height, layout.width)
    rows = layout.rows_of(index)
    packed = memoryview(data)[start : start + count]
    if layout.reversed_bits:
        packed = memoryview(bytes(packed).translate(REVERSED))
    if layout.compression in (JPEG, WEBP):
        decode = _jpeg if layout.compression == JPEG else _webp
        samples = decode(packed, layout)
        if samples.shape[0] < rows or samples.shape[1:] != (layout.segment_hw[1], layout.segment_samples):
            raise damaged(f"strip or tile {index} has another size", layout.height, layout.width)
        return samples[:rows]
    if layout.compression not in UNPACK:
        what = REFUSED.get(layout.compression, f"compression {layout.compression}")
        raise ImageError(f"expected a TIFF without compression, or LZW, Deflate or JPEG, got {what}. Save it so.")
    needed = rows * layout.row_bytes
    # Some writers fill the last strip up to the height of the others.
    content = UNPACK[layout.compression](packed, rows, layout.row_bytes, layout.segment_bytes)
    if len(content) < needed:
        raise damaged(f"strip or tile {index} has {len(content)} of {needed} bytes", layout.height, layout.width)
    return _samples(np.frombuffer(content, np.uint8, needed).reshape(rows, layout.row_bytes), layout)


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


def _none(packed: memoryview, rows: int, row_bytes: int, most: int) -> memoryview:
    return packed


def _deflate(packed: memoryview, rows: int, row_bytes: int, most: int) -> bytes:
    stream = zlib.decompressobj()
    content = stream.decompress(packed, most + 1)
    # The end holds the checksum, which is compared on the way.
    if not stream.eof and len(content) <= most:
        content += stream.decompress(stream.unconsumed_tail, 1)
    if not stream.eof:
        raise damaged("a strip or tile ends early or is longer than it may be")
    return content


def _lzma(packed: memoryview, rows: int, row_bytes: int, most: int) -> bytes:
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY)
    try:
        content = stream.decompress(packed, most + 1)
    except lzma.LZMAError as error:
        raise damaged(f"a strip or tile cannot be unpacked: {error}") from error
    if not stream.eof:
        raise damaged("a strip or tile ends early or is longer than it may be")
    return content


def _zstd(packed: memoryview, rows: int, row_bytes: int, most: int) -> bytes:
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


def _lzw(packed: memoryview, rows: int, row_bytes: int, most: int) -> memoryview:
    return _by_opencv(bytes(packed), LZW, rows, row_bytes, _lzw_zeros)


def _packbits(packed: memoryview, rows: int, row_bytes: int, most: int) -> memoryview:
    return _by_opencv(bytes(packed), PACKBITS, rows, row_bytes, _packbits_zeros)


def _by_opencv(packed: bytes, compression: int, rows: int, row_bytes: int, zeros: Callable[[int], bytes]) -> memoryview:
    """Unpack by OpenCV's TIFF reader: as 16-bit gray, the one layout in which it says of any missing byte."""
    added = row_bytes if rows * row_bytes % 2 else 0
    if added:
        packed, rows = zeros(row_bytes) + packed, rows + 1
    height, width = (rows, row_bytes // 2) if row_bytes % 2 == 0 else (rows // 2, row_bytes)
    if max(height, width) > MAX_SIDE:
        raise ImageError(f"expected rows of at most {MAX_SIDE} bytes, got {row_bytes}. Save it without compression.")
    file = _gray_tiff(packed, compression, height, width)
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape != (height, width) or pixels.dtype != np.uint16:
        raise damaged("a strip or tile ends early or cannot be unpacked")
    return memoryview(pixels.astype("<u2", copy=False).reshape(-1).view(np.uint8))[added:]


def _gray_tiff(packed: bytes, compression: int, height: int, width: int) -> bytes:
    """A TIFF file of one strip of 16-bit gray."""
    tags = (
        (256, width), (257, height), (258, 16), (259, compression), (262, GRAY[1]), (273, 8), (277, 1), (278, height),
        (279, len(packed)),
    )  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    filler = b"\0" * (len(packed) % 2)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(packed) + len(filler))
    return b"".join((head, packed, filler, directory, b"\0\0\0\0"))


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


UNPACK: dict[int, Callable[[memoryview, int, int, int], bytes | memoryview]] = {
    NONE: _none,
    LZW: _lzw,
    PACKBITS: _packbits,
    DEFLATE: _deflate,
    OLD_DEFLATE: _deflate,
    LZMA: _lzma,
    ZSTD: _zstd,
}
