"""The values of an image as they are stored: those of a mask are names, not brightness."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.errors import ImageError
from fewshot_ad.host.lifetime import native_work
from fewshot_ad.images.formats import decode
from fewshot_ad.images.reading import file_content
from fewshot_ad.images.signatures import format_of

DEPTH_OF_PNG = 24  # where the byte with the bits of a channel stands


@native_work()
def read_values(path: str | os.PathLike[str]) -> npt.NDArray[np.integer[Any]]:
    """Read an image whose values are names, such as a mask; what `read_image` refuses is refused.

    Args:
        path: An image file.

    Returns:
        (H, W) uint8 or uint16: the largest of the color channels. 16 bits are not scaled, so a small value does not
        become 0.

    Raises:
        ImageError: The image cannot be used; the message says why and what to do.
    """
    try:
        content = file_content(Path(path))
        rgb = decode(content, None)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error.__cause__
    stored = _stored_16_bit(content)
    if stored is None or stored.shape[:2] != rgb.shape[:2]:
        return _largest(rgb)
    # A fourth channel is opacity.
    return stored if stored.ndim == 2 else _largest(stored)


def _stored_16_bit(content: bytes) -> npt.NDArray[np.uint16] | None:
    name = format_of(content)
    if name not in ("TIFF", "PNM") and not (name == "PNG" and content[DEPTH_OF_PNG] == 16):
        return None
    stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return stored if stored is not None and stored.dtype == np.uint16 else None


def _largest(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Twenty times as fast as `max` along the last axis.
    return np.asarray(np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2]))
