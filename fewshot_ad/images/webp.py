"""WebP: its chunks are checked here, then OpenCV decodes it."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.images.limits import check_memory, check_size, damaged, several
from fewshot_ad.images.orientation import exif_orientation, upright

MAX_CHUNKS = 1_000
ANIMATION = 0x02
# A damaged EXIF record is ours to ignore.
FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# Measured: lossless files take most.
BYTES_PER_PIXEL = 10


def decode(data: bytes) -> Uint8Array:
    """Decode a WebP file.

    Returns:
        (H, W, 3) uint8, RGB, upright. Transparency is dropped.

    Raises:
        ImageError: It is damaged, an animation, or too large.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise damaged(f"it has {len(data)} of {end} bytes")
    size: tuple[int, int] | None = None
    orientation = 1
    for name, content in _chunks(memoryview(data)[:end]):
        if name == b"EXIF":
            orientation = exif_orientation(bytes(content))
        elif name in (b"ANIM", b"ANMF") or (name == b"VP8X" and content[0] & ANIMATION):
            raise several("an animated WebP", "Save the frame you mean as PNG.")
        elif size is None:
            size = _size(name, bytes(content[:10]))
    if size is None:
        raise damaged("it holds no image")
    check_size(*size)
    check_memory(len(data) + size[0] * size[1] * BYTES_PER_PIXEL)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8, count=end), FLAGS)
    if pixels is None or pixels.shape != (*size, 3):
        raise damaged("its compressed data ends early or is wrong", *size)
    return upright(pixels, orientation)


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    position = 12
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            return
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        content = data[position + 8 : position + 8 + length]
        if len(content) < max(length, 1):
            raise damaged("it breaks off within a chunk")
        yield bytes(data[position : position + 4]), content
        position += 8 + length + (length & 1)
    raise damaged("it has too many chunks")


def _size(name: bytes, content: bytes) -> tuple[int, int] | None:
    """Height and width, if this chunk tells them."""
    number = int.from_bytes(content, "little")
    if name == b"VP8X":
        return 1 + (number >> 56 & 0xFFFFFF), 1 + (number >> 32 & 0xFFFFFF)
    if name == b"VP8L":
        return 1 + (number >> 22 & 0x3FFF), 1 + (number >> 8 & 0x3FFF)
    if name == b"VP8 ":
        return number >> 64 & 0x3FFF, number >> 48 & 0x3FFF
    return None
