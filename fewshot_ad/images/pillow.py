"""Images that Pillow opened. It is not a dependency of this package, but installed where such an image comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError, sentence
from fewshot_ad.images.channels import row_blocks, to_rgb
from fewshot_ad.images.jpeg import read_header, refuse_second_image
from fewshot_ad.images.limits import FEWER_BITS, MAX_FILE_BYTES, check_memory, check_size, several
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
            f"expected a PIL image that can be decoded, got {type(error).__name__}: {sentence(error)} "
            "Open it again, or copy or record the file again."
        ) from error


def _convert(image: Any) -> Uint8Array:
    _refuse_several(image)
    width, height = image.size
    check_size(height, width)
    high_depth = image.mode == "F" or image.mode.startswith("I")
    if high_depth:
        check_memory(height * width * 12, FEWER_BITS)
    # While it loads a TIFF, Pillow turns it upright, and only then drops the orientation.
    image.load()
    width, height = image.size
    orientation = _orientation(image)
    if high_depth:
        return upright(to_rgb(_levels(image)), orientation)
    rgb = np.empty((height, width, 3), np.uint8)
    for rows in row_blocks(height, width):
        rgb[rows] = np.asarray(image.crop((0, rows.start, width, rows.stop)).convert("RGB"))
    return upright(rgb, orientation)


def _refuse_several(image: Any) -> None:
    count = getattr(image, "n_frames", 1)
    if count < 2:
        return
    file = getattr(image, "fp", None)
    if getattr(image, "format", None) != "MPO" or file is None or file.closed or image.tell():
        raise several(
            f"a PIL image of {count} pages or frames", "Give image.copy() of the one you mean, after image.seek(...)."
        )
    # A JPEG with previews or gain maps behind it, as phones write: what holds for its file holds here.
    position = file.tell()
    file.seek(0)
    data = file.read(MAX_FILE_BYTES)
    file.seek(position)
    refuse_second_image(data, read_header(data))


def _levels(image: Any) -> npt.NDArray[Any]:
    pixels = np.asarray(image)
    if pixels.dtype != np.int32:
        return pixels
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        return pixels  # refused by its type
    if high <= 255:
        # Either 8 bits that were converted, or 16 bits of an image that is black to the eye: no use of it is safe.
        raise ImageError(
            f"expected a PIL image of mode 'I' with values up to 65535, got none above {high}. "
            "If they are 8-bit gray levels, give image.convert('L')."
        )
    # Pillow's mode of 16-bit gray, in some versions.
    return pixels.astype(np.uint16)


def _orientation(image: Any) -> int:
    try:
        orientation = int(image.getexif().get(TAG, 1))
    except Exception:  # a damaged record, which Pillow tells of in many ways, does not make the pixels wrong
        return 1
    return orientation if 1 <= orientation <= 8 else 1
