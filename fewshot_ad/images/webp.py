"""WebP: its chunks are checked here, then OpenCV decodes it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Uint8Array
from fewshot_ad.images.channels import row_blocks
from fewshot_ad.images.limits import AS_PNG, check_memory, check_size, damaged, several
from fewshot_ad.images.orientation import exif_orientation, upright
from fewshot_ad.images.signatures import refuse_image_behind

MAX_CHUNKS = 1_000
ANIMATION = 0x02
# A damaged EXIF record is ours to ignore.
FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# Measured: lossless files take most.
BYTES_PER_PIXEL = 10
MACROBLOCK = 16
# Usual settings write up to 130 zeros into images that are not flat at all.
ZEROS = re.compile(rb"\0{256,}")


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
    refuse_image_behind(data, end)
    size: tuple[int, int] | None = None
    orientation = 1
    is_lossless = False
    zeros = count = 0
    for name, content in _chunks(memoryview(data)[:end]):
        if name == b"EXIF":
            orientation = exif_orientation(bytes(content))
        elif name in (b"ANIM", b"ANMF") or (name == b"VP8X" and content[0] & ANIMATION):
            raise several("an animated WebP", "Save the frame you mean as PNG.")
        elif name in (b"VP8 ", b"VP8L"):
            is_lossless = name == b"VP8L"
            count = len(content)
            zeros = max(map(len, ZEROS.findall(content)), default=0)
        if size is None:
            size = _size(name, bytes(content[:10]))
    if size is None:
        raise damaged("it holds no image")
    check_size(*size)
    check_memory(len(data) + size[0] * size[1] * BYTES_PER_PIXEL, AS_PNG)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8, count=end), FLAGS)
    if pixels is None or pixels.shape != (*size, 3):
        raise damaged("its compressed data ends early or is wrong", *size)
    if zeros and _is_hole(zeros, count, pixels, is_lossless):
        raise damaged("a hole of zeros in its pixels", *size)
    return upright(pixels, orientation)


def _is_hole(zeros: int, count: int, pixels: Uint8Array, is_lossless: bool) -> bool:
    """Whether bytes of zero are a lost disk block: there is no checksum, and the decoder takes them for pixels.

    Encoders write many only where the image is flat. Measured of libwebp at its fastest, method 0: a flat macroblock of
    a lossy image takes at most 0.28 of the bytes that one of the others takes, and 17; with all other methods it takes
    less than one byte; a flat pixel of a lossless image takes 3 bits, or 6 if less than half of the image is flat.

    Args:
        zeros: Length of the longest run of zeros.
        count: Bytes of all compressed pixels.
        pixels: (H, W, 3) uint8, as they were decoded.
        is_lossless: Whether the compression is.
    """
    flat = _flat_pixels(pixels)
    if is_lossless:
        share = int(np.count_nonzero(flat)) / flat.size
        return share < 0.25 or 8 * zeros > (3 if share >= 0.5 else 6) * share * flat.size
    height, width = flat.shape[0] // MACROBLOCK, flat.shape[1] // MACROBLOCK
    whole = flat[: height * MACROBLOCK, : width * MACROBLOCK].reshape(height, MACROBLOCK, width, MACROBLOCK)
    others = np.flatnonzero(~whole.all(axis=(1, 3)))
    longest = int(np.diff(others, prepend=-1, append=height * width).max()) - 1
    return zeros > longest * min(max(1.0, 0.4 * count / max(len(others), 1)), 20.0)


def _flat_pixels(pixels: Uint8Array) -> BoolArray:
    """(H, W), where a pixel is like its left or its upper neighbor."""
    flat = np.zeros(pixels.shape[:2], bool)
    for rows in row_blocks(*pixels.shape[:2]):
        block = pixels[rows]
        above = pixels[max(rows.start - 1, 0) : rows.stop - 1]
        flat[rows, 1:] = (block[:, 1:] == block[:, :-1]).all(axis=2)
        flat[max(rows.start, 1) : rows.stop] |= (block[-len(above) :] == above).all(axis=2)
    flat[0, 0] = True
    return flat


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
