"""Images that Pillow opened. It is not a dependency of this package, but installed where such an image comes from."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images.channels import row_blocks, to_rgb
from fewshot_ad.images.limits import check_memory, check_size, several
from fewshot_ad.images.orientation import TAG, upright


def from_pil(image: Any) -> Uint8Array:
    """Convert a PIL image.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        ImageError: It cannot be used, whatever Pillow raises.
    """
    try:
        return _convert(image)
    except ImageError:
        raise
    except Exception as error:  # a closed file, a damaged one, a bomb: each has another class
        raise ImageError(
            f"expected a PIL image that can be decoded, got {type(error).__name__}: {error}. "
            "Open it again, or copy or record the file again."
        ) from error


def _convert(image: Any) -> Uint8Array:
    if getattr(image, "n_frames", 1) > 1:
        raise several(f"a PIL image of {image.n_frames} pages or frames", "Give image.copy() of the one you mean.")
    width, height = image.size
    check_size(height, width)
    orientation = _orientation(image)
    if image.mode == "F" or image.mode.startswith("I"):
        check_memory(height * width * 12)
        pixels = np.asarray(image)
        # Pillow's mode of 16-bit gray, in some versions.
        is_16_bit = pixels.dtype == np.int32 and pixels.min() >= 0 and pixels.max() <= 65535
        return upright(to_rgb(pixels.astype(np.uint16) if is_16_bit else pixels), orientation)
    rgb = np.empty((height, width, 3), np.uint8)
    for rows in row_blocks(height, width):
        rgb[rows] = np.asarray(image.crop((0, rows.start, width, rows.stop)).convert("RGB"))
    return upright(rgb, orientation)


def _orientation(image: Any) -> int:
    try:
        orientation = int(image.getexif().get(TAG, 1))
    except Exception:  # a damaged record, which Pillow tells of in many ways, does not make the pixels wrong
        return 1
    return orientation if 1 <= orientation <= 8 else 1
