"""PNG: its chunks are checked here, then OpenCV decodes those that hold the pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images.channels import row_blocks, to_rgb
from fewshot_ad.images.limits import CUT, FEWER_BITS, check_memory, check_size, damaged, several
from fewshot_ad.images.orientation import exif_orientation, upright
from fewshot_ad.images.signatures import PNG, refuse_image_behind

PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# Color type -> channels that OpenCV decodes 16 bits to, and the bit depths that exist.
COLOR_TYPES = {0: (1, (1, 2, 4, 8, 16)), 2: (4, (8, 16)), 3: (3, (1, 2, 4, 8)), 4: (4, (8, 16)), 6: (4, (8, 16))}
PALETTE = 3
MAX_CHUNKS = 200_000


def decode(data: bytes) -> Uint8Array:
    """Decode a PNG file.

    Returns:
        (H, W, 3) uint8, RGB, upright. Transparency is dropped, 16 bits are scaled to 8.

    Raises:
        ImageError: It is damaged, an animation, or too large.
    """
    view = memoryview(data)
    kept: list[memoryview | bytes] = [PNG]
    height = width = depth = color = 0
    orientation = 1
    unused: tuple[int, int, int] | None = None
    for name, start, end in _chunks(data):
        if len(kept) == 1:
            height, width, depth, color = _read_header(name, data[start:end], len(data))
        if name == b"PLTE" and color == PALETTE:
            unused = _unused_color(data[start:end], depth)
            kept.append(_palette_chunk(data[start:end], depth, unused))
        elif name in PIXEL_CHUNKS:
            # Text, profiles and the like are left out: they may unpack to anything, and no pixel needs them.
            kept.append(view[start - 8 : end + 4])
        elif name == b"fdAT" or (name == b"acTL" and data[start : start + 4] != b"\0\0\0\1"):
            raise several("an animated PNG of several frames", "Save the frame you mean.")
        elif name == b"eXIf":
            orientation = exif_orientation(data[start:end])
        elif not name[0] & 0x20:
            raise ImageError(f"expected a standard PNG, got one with a chunk {name!r}. Save it again as PNG.")
    buffer = np.frombuffer(b"".join(kept), np.uint8)
    # Of 16 bits OpenCV gives the whole with this flag only; of less than 8 it then gives the levels unscaled.
    pixels = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED if depth == 16 else cv2.IMREAD_COLOR_RGB)
    if pixels is None or pixels.shape[:2] != (height, width):
        raise damaged("its compressed data ends early or is wrong", height, width)
    if unused is not None and _has_color(pixels, unused):
        raise damaged("a pixel names a color that its palette lacks", height, width)
    return upright(to_rgb(pixels, "bgr" if depth == 16 else "rgb"), orientation)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each chunk, its checksum compared."""
    position = len(PNG)
    view = memoryview(data)
    for _ in range(MAX_CHUNKS):
        if position + 12 > len(data):
            raise damaged("it breaks off before its last chunk")
        length, name = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            raise damaged(f"it breaks off in the chunk {name!r}")
        is_whole = zlib.crc32(view[position + 4 : end]) == int.from_bytes(data[end : end + 4], "big")
        if not is_whole and (name in PIXEL_CHUNKS or not name[0] & 0x20):
            raise damaged(f"the checksum of the chunk {name!r} is wrong")
        if is_whole:  # a damaged text or profile takes nothing from the pixels
            yield name, start, end
        position = end + 4
        if name == b"IEND":
            refuse_image_behind(data, position)
            return
    raise ImageError(f"expected a PNG of at most {MAX_CHUNKS} chunks, got more. Save it again as PNG.")


def _unused_color(palette: bytes, depth: int) -> tuple[int, int, int] | None:
    """A color that a palette lacks, if it has fewer than pixels can name; they would silently be black."""
    if len(palette) >= 3 << depth:
        return None
    colors = {tuple(palette[start : start + 3]) for start in range(0, len(palette), 3)}
    return next((level, level, level) for level in range(256) if (level, level, level) not in colors)


def _palette_chunk(palette: bytes, depth: int, unused: tuple[int, int, int] | None) -> bytes:
    """The palette's chunk, filled up with a color that tells which pixels name none."""
    if unused is not None:
        palette = (palette + bytes(unused) * (1 << depth))[: 3 << depth]
    body = b"PLTE" + palette
    return struct.pack(">I", len(palette)) + body + struct.pack(">I", zlib.crc32(body))


def _has_color(pixels: Uint8Array, color: tuple[int, int, int]) -> bool:
    return any((pixels[rows] == color).all(axis=2).any() for rows in row_blocks(*pixels.shape[:2]))


def _read_header(name: bytes, content: bytes, file_bytes: int) -> tuple[int, int, int, int]:
    if name != b"IHDR" or len(content) != 13:
        raise damaged("its header is missing")
    width, height, depth, color, compression, filtering, interlace = struct.unpack(">IIBBBBB", content)
    channels, depths = COLOR_TYPES.get(color, (0, ()))
    if depth not in depths or compression or filtering or interlace > 1:
        raise damaged("its header makes no sense")
    check_size(height, width)
    # OpenCV decodes into one array and copies it into another.
    per_pixel = 2 * 2 * channels if depth == 16 else 2 * 3
    check_memory(2 * file_bytes + height * width * max(per_pixel, 6), FEWER_BITS if depth == 16 else CUT)
    return height, width, depth, color
