"""How a camera was held: the orientation in an image's EXIF record."""

from __future__ import annotations

import struct

import cv2

from fewshot_ad.arrays import Uint8Array

TAG = 0x0112


def exif_orientation(exif: bytes) -> int:
    """The orientation in an EXIF record.

    Args:
        exif: The record, which is a small TIFF file, with or without `Exif` before it.

    Returns:
        1 to 8; 1 (upright) as well if the record is damaged, which never stops a read.
    """
    if exif[:6] == b"Exif\0\0":
        exif = exif[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for index in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * index)
            if tag == TAG:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def upright(pixels: Uint8Array, orientation: int) -> Uint8Array:
    """Turn pixels (H, W, 3) uint8 as their orientation says; (W, H, 3) if the camera was held upright.

    Args:
        pixels: As they are stored.
        orientation: EXIF's 1 to 8.
    """
    if orientation in (5, 7):
        pixels = cv2.transpose(pixels)
    if orientation in (2, 4):
        return cv2.flip(pixels, 1 if orientation == 2 else 0)
    turn = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 7: cv2.ROTATE_180, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}
    return cv2.rotate(pixels, turn[orientation]) if orientation in turn else pixels
