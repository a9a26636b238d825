"""What users may pass as images -> a list of single ones, and their names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from fewshot_ad.errors import ImageError
from fewshot_ad.images.listing import list_images


class PILImage(Protocol):
    """What is used of a PIL image; PIL itself is not needed."""

    def convert(self, mode: str) -> Any:
        """The image in another mode."""

    def load(self) -> Any:
        """Read the pixels of its file."""

    def getexif(self) -> Any:
        """Its EXIF record."""


# One image:
# - a path of a PNG, JPEG, BMP, TIFF, WebP, PNM or single-frame GIF file, or the content of one as bytes or as a file
#   opened for bytes, which is read from its position on;
# - an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, uint16 (full range), float in 0..1 or bool, or what
#   becomes one by numpy.asarray, such as a tensor;
# - a PIL image of one frame.
ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | npt.NDArray[Any] | PILImage
)


def is_pil(source: Any) -> bool:
    """Whether an object is a PIL image."""
    return hasattr(source, "convert") and hasattr(source, "getexif")


def is_tensor(source: Any) -> bool:
    """Whether an object is a tensor of torch, which need not be installed."""
    return type(source).__module__.partition(".")[0] == "torch"


def image_name(source: ImageSource, index: int) -> str:
    """The name of an image in reports: its file name, or `image[index]` for an image from memory."""
    return Path(source).name if isinstance(source, (str, os.PathLike)) else f"image[{index}]"


@overload
def expand_sources(
    images: ImageSource | Iterable[ImageSource], keep_errors: Literal[False] = False
) -> list[ImageSource]: ...
@overload
def expand_sources(
    images: ImageSource | Iterable[ImageSource], keep_errors: bool
) -> list[ImageSource | ImageError]: ...
def expand_sources(images: Any, keep_errors: bool = False) -> Any:
    """Flatten one or several images, in any form that users may pass, into a list of single images.

    Args:
        images: One image or an iterable of images, as `arguments.image_sources` lets it through. Folders and globs are
            expanded; an array (N, H, W, 3) counts as N images, an array or a table's column of paths or of images as
            its items.
        keep_errors: Whether an entry that cannot be listed (an empty folder, a missing file) stays in its place as its
            `ImageError`.

    Raises:
        ImageError: A folder or glob holds no image, and `keep_errors` is not set.
    """
    if _is_single(images) or hasattr(images, "__array__"):
        images = [images]
    sources: list[Any] = []
    for image in images:
        try:
            sources.extend(_expand(image))
        except ImageError as error:
            if not keep_errors:
                raise
            sources.append(error)
    return sources


def _is_single(images: Any) -> bool:
    is_content = isinstance(images, (bytes, bytearray, memoryview)) or hasattr(images, "read")
    return isinstance(images, (str, os.PathLike)) or is_content or is_pil(images) or not isinstance(images, Iterable)


def _expand(image: Any) -> list[Any]:
    """The single images of one entry."""
    if isinstance(image, (str, os.PathLike)):
        return list(list_images(image))
    if _is_single(image) or not hasattr(image, "__array__"):
        return [image]
    if is_tensor(image):
        # As it is: `read_image` knows that its channels may come first.
        return list(image) if image.ndim == 4 else [image]
    try:
        # Its mask is not to be lost: `read_image` refuses it.
        array = image if isinstance(image, np.ma.MaskedArray) else np.asarray(image)
    except Exception:  # `read_image` says what is wrong with it
        return [image]
    if array.dtype.kind not in "OUS":
        return list(array) if array.ndim == 4 else [array]
    if array.ndim > 1:
        raise ImageError(
            f"expected one column of images or paths, got an array of shape {array.shape}. Give the column itself."
        )
    items = np.atleast_1d(array).tolist()
    return [item for entry in items for item in _expand(os.fsdecode(entry) if array.dtype.kind == "S" else entry)]
