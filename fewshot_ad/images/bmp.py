"""BMP: its header is checked here, then OpenCV decodes it."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images.channels import to_rgb
from fewshot_ad.images.limits import check_memory, check_size, damaged

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
    check_memory(len(data) + height * width * 7)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != (height, width):
        raise damaged("OpenCV cannot decode it", height, width)
    return to_rgb(pixels, "bgr")
