"""Turns an array of any supported layout and depth into RGB uint8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images.limits import check_size

ColorOrder: TypeAlias = Literal["rgb", "bgr"]

# Pixels that are converted at a time, so that what is needed in between stays small.
BLOCK_PIXELS = 1 << 20


def to_rgb(array: npt.NDArray[Any], color: ColorOrder = "rgb") -> Uint8Array:
    """Convert an array to RGB uint8.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, uint16 (full range), float in 0..1 or bool.
        color: Order of its channels.

    Returns:
        (H, W, 3) uint8, C-contiguous; the array itself if it is that already.

    Raises:
        ImageError: Wrong shape, size, type or range.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(
            f"expected shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}. {_advice_on_shape(array.shape)}"
        )
    check_size(array.shape[0], array.shape[1])
    check_values(array)
    if array.dtype == np.uint8:
        return _arrange(array, color)
    rgb = np.empty((*array.shape[:2], 3), np.uint8)
    for rows in row_blocks(*array.shape[:2]):
        rgb[rows] = _arrange(to_uint8(array[rows]), color)
    return rgb


def _advice_on_shape(shape: tuple[int, ...]) -> str:
    """How an array of a wrong shape becomes an image."""
    if len(shape) == 4:
        order = "" if shape[3] in (1, 3, 4) or shape[1] not in (1, 3, 4) else ".transpose(1, 2, 0)"
        several = "" if shape[0] == 1 else " of the first image, [1] of the second, and so on"
        return f"It looks like a stack of {shape[0]}: use array[0]{order}{several}."
    if len(shape) == 3 and shape[2] == 2:
        return "It looks like gray with a second channel: use array[..., 0]."
    if len(shape) == 3 and shape[0] in (3, 4):
        return "It looks like channels first: use array.transpose(1, 2, 0)."
    if len(shape) == 3 and shape[0] in (1, 2):
        return "It looks like channels first: use array[0]."
    if len(shape) == 1:
        return "Encoded bytes are given as array.tobytes(), pixels by array.reshape(height, width, 3)."
    return "Give one image, with its height and its width."


def row_blocks(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that together are an image, each of about `BLOCK_PIXELS` pixels."""
    step = max(1, BLOCK_PIXELS // width)
    return (slice(start, min(start + step, height)) for start in range(0, height, step))


def check_values(array: npt.NDArray[Any]) -> None:
    """Refuse a type or a range whose meaning as gray levels is not known.

    Raises:
        ImageError: Neither uint8, uint16, bool nor finite floats in 0..1.
    """
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b" or (kind == "u" and size <= 2):
        return
    if kind != "f":
        raise ImageError(
            f"expected dtype uint8, uint16 or float in 0..1, got {array.dtype}. "
            "Convert with array.astype(numpy.uint8) if the values are 0..255."
        )
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("expected finite floats in 0..1, got NaN or infinity. Correct the source.")
    if low < 0 or high > 1:
        raise ImageError(
            f"expected floats in 0..1, got {low:.4g}..{high:.4g}. Divide by the full scale, or convert to uint8."
        )


def to_uint8(array: npt.NDArray[Any]) -> Uint8Array:
    """Scale values that `check_values` accepts from their full range to 0..255, rounded to the nearest."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u":
        # 65535 = 257 * 255.
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.rint(array * 255).astype(np.uint8)


def cmyk_to_rgb(inks: Uint8Array, inverted: bool) -> Uint8Array:
    """Convert amounts of ink (H, W, 4) uint8 to RGB (H, W, 3) uint8.

    Args:
        inks: Cyan, magenta, yellow and black; 0 is no ink, or with `inverted` full ink.
        inverted: Whether the file stores the light that is left, as Adobe's programs do.
    """
    rgb = np.empty((*inks.shape[:2], 3), np.uint8)
    for rows in row_blocks(*inks.shape[:2]):
        light = inks[rows].astype(np.uint16)
        if not inverted:
            light = 255 - light
        rgb[rows] = (light[..., :3] * light[..., 3:] + 127) // 255
    return rgb


def _arrange(array: Uint8Array, color: ColorOrder) -> Uint8Array:
    if array.ndim == 2:
        return cv2.cvtColor(np.ascontiguousarray(array), cv2.COLOR_GRAY2RGB)
    if color == "bgr":
        code = cv2.COLOR_BGRA2RGB if array.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return cv2.cvtColor(np.ascontiguousarray(array), code)
    return np.ascontiguousarray(array if array.shape[2] == 3 else array[..., :3])
