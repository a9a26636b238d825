"""BMP: its header is checked here, then OpenCV decodes it."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images.channels import row_blocks, to_rgb
from fewshot_ad.images.limits import AS_PNG, check_memory, check_size, damaged
from fewshot_ad.images.signatures import refuse_image_behind

PLAIN, BIT_FIELDS = 0, 3
READ_BITS = (1, 4, 8, 24, 32)
# Header sizes of versions 3 (which has variants of 52 and 56 bytes), 4 and 5.
HEADER_BYTES = (40, 52, 56, 108, 124)
BGR_MASKS = (0xFF0000, 0xFF00, 0xFF)


def decode(data: bytes) -> Uint8Array:
    """Decode a BMP file.

    Returns:
        (H, W, 3) uint8, RGB. Transparency is dropped.

    Raises:
        ImageError: It is damaged, or is a kind that is not read.
    """
    if len(data) < 54:
        raise damaged("it breaks off in its header")
    offset, header_bytes, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    height = abs(height)  # a negative height counts rows from the top
    if header_bytes not in HEADER_BYTES:
        raise ImageError(f"expected a BMP of version 3 to 5, got a header of {header_bytes} bytes. Save it as PNG.")
    masks = struct.unpack_from("<III", data, 54) if compression == BIT_FIELDS and len(data) >= 66 else BGR_MASKS
    if compression not in (PLAIN, BIT_FIELDS) or bits not in READ_BITS or masks != BGR_MASKS:
        raise ImageError(
            f"expected a BMP of {', '.join(map(str, READ_BITS))} bits without compression, got {bits} bits with "
            f"compression {compression}. Save it as PNG."
        )
    check_size(height, width)
    rows_bytes = height * ((width * bits + 31) // 32 * 4)
    if offset + rows_bytes > len(data):
        raise damaged(f"it has {len(data)} of {offset + rows_bytes} bytes", height, width)
    refuse_image_behind(data, offset + rows_bytes)
    _check_colors(data, offset, bits, height, width)
    check_memory(len(data) + height * width * 7, AS_PNG)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != (height, width):
        raise damaged("OpenCV cannot decode it", height, width)
    return to_rgb(pixels, "bgr")


def _check_colors(data: bytes, offset: int, bits: int, height: int, width: int) -> None:
    """Refuse pixels that name a color which the palette lacks; they would silently be black."""
    used = int.from_bytes(data[46:50], "little")
    if bits > 8 or not 0 < used < 1 << bits:
        return
    row_bytes = (width * bits + 31) // 32 * 4
    rows = np.frombuffer(data, np.uint8, height * row_bytes, offset).reshape(height, row_bytes)
    for block in row_blocks(height, width):
        if int(_indices(rows[block], bits, width).max()) >= used:
            raise damaged("a pixel names a color that its palette lacks", height, width)


def _indices(rows: Uint8Array, bits: int, width: int) -> Uint8Array:
    if bits == 8:
        return rows[:, :width]
    separate = np.unpackbits(rows, axis=1)[:, : width * bits].reshape(-1, bits)
    return np.packbits(separate, axis=1) >> np.uint8(8 - bits)
