"""GIF of a single frame: its blocks are checked here, then OpenCV decodes it."""

from __future__ import annotations

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images.limits import AS_PNG, check_memory, check_size, damaged, several
from fewshot_ad.images.signatures import refuse_image_behind

EXTENSION, FRAME, TRAILER = 0x21, 0x2C, 0x3B
GRAPHIC_CONTROL = 0xF9
TRANSPARENT = 1
BYTES_PER_PIXEL = 12
# More takes longer than a few seconds.
MAX_PIXELS = 50_000_000


def decode(data: bytes) -> Uint8Array:
    """Decode a GIF file.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        ImageError: It is damaged, an animation, or has transparent pixels, whose color nobody chose.
    """
    if len(data) < 13:
        raise damaged("it breaks off in its header")
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    check_size(height, width)
    check_memory(len(data) + height * width * BYTES_PER_PIXEL, AS_PNG)
    if height * width > MAX_PIXELS:
        raise ImageError(f"expected a GIF of at most {MAX_PIXELS // 1_000_000} megapixels, got more. Save it as PNG.")
    frames = _check_blocks(data)
    if frames != [(0, 0, width, height)]:
        raise damaged("its frame does not cover the image", height, width)
    try:
        whole, animation = cv2.imdecodeanimation(np.frombuffer(data, np.uint8), 0, 2)
    except (AttributeError, cv2.error) as error:
        raise ImageError(f"this OpenCV cannot read GIF ({error}). Save the image as PNG.") from error
    if not whole or len(animation.frames) != 1:
        raise damaged("its compressed data ends early or is wrong", height, width)
    return cv2.cvtColor(animation.frames[0], cv2.COLOR_BGRA2RGB)


def _check_blocks(data: bytes) -> list[tuple[int, ...]]:
    """Left, top, width and height of each frame."""
    frames: list[tuple[int, ...]] = []
    is_transparent = False
    position = 13 + _table_bytes(data[10])
    while position < len(data) and data[position] != TRAILER:
        kind = data[position]
        if kind == FRAME and position + 10 <= len(data):
            frames.append(tuple(int.from_bytes(data[position + i : position + i + 2], "little") for i in (1, 3, 5, 7)))
            position += 11 + _table_bytes(data[position + 9])
        elif kind == EXTENSION and position + 4 <= len(data):
            is_transparent |= data[position + 1] == GRAPHIC_CONTROL and bool(data[position + 3] & TRANSPARENT)
            position += 2
        else:
            raise damaged("it breaks off between its blocks")
        if len(frames) > 1:
            raise several("an animated GIF of several frames", "Save the frame you mean as PNG.")
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    if position >= len(data):
        raise damaged("it breaks off before its end")
    refuse_image_behind(data, position + 1)
    if is_transparent:
        raise ImageError("expected an opaque GIF, got one with a transparent color. Save the image as PNG.")
    return frames


def _table_bytes(flags: int) -> int:
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0
