"""What users may pass as images -> a list of single ones, and their names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from fewshot_ad.errors import ImageError


class PILImage(Protocol):
    """What is used of a PIL image; PIL itself is not needed."""

    def convert(self, mode: str) -> Any:
        """The image in another mode."""

    def getexif(self) -> Any:
        """Its EXIF record."""


# One image:
# - a path of a PNG, JPEG, BMP, TIFF, WebP, PNM or single-frame GIF file, or the content of one as bytes or as a file
#   opened for bytes;
# - an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, uint16 (full range), float in 0..1 or bool, or what
#   becomes one by numpy.asarray, such as a tensor;
# - a PIL image of one frame.
ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | npt.NDArray[Any] | PILImage
)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".gif"})


def is_pil(source: Any) -> bool:
    """Whether an object is a PIL image."""
    return hasattr(source, "convert") and hasattr(source, "getexif")


def list_images(source: str | os.PathLike[str]) -> list[Path]:
    """Expand a folder, a glob or a file name into image paths, in sorted order.

    Args:
        source: A folder (its images, not its subfolders), a glob such as `good/*.png`, or one file. Folders that exist
            are taken literally: `line [A]/*.png` lists the folder `line [A]`.

    Raises:
        ImageError: Nothing matches, the folder holds no image, or the name is empty.
    """
    if not os.fspath(source):
        # It would be the working folder.
        raise ImageError("expected the name of a folder, a file or a glob, got an empty text. Name the images.")
    path = Path(source)
    try:
        if path.is_dir():
            return _images_in(path)
        if path.exists():
            return [path]
        pattern = _escape_existing(path)
        matches = sorted(p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file())
    except OSError as error:
        raise ImageError(f"{path}: cannot be listed ({error.strerror}). Check the path and the permissions.") from error
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"expected a path, but no file can have {str(source)!r} ({error}). Check it.") from error
    if not matches:
        raise ImageError(f"expected a folder, a file or a glob of files, but nothing matches {str(source)!r}.")
    return matches


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


def _images_in(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ImageError(f"{folder}: the folder cannot be listed ({error.strerror}). Check the permissions.") from error
    # macOS and copying programs leave hidden files behind, whose names begin with a dot.
    images = [p for p in entries if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")]
    if not images:
        names = [p.name for p in entries][:5]
        raise ImageError(
            f"expected images ({', '.join(sorted(SUFFIXES))}) in {folder}, found none"
            f"{' but ' + ', '.join(names) if names else ' (the folder is empty)'}. Name the folder that "
            "holds the images themselves."
        )
    return images


def _escape_existing(path: Path) -> str:
    """The glob with those leading parts escaped that exist as they are written."""
    literal = Path(path.anchor)
    parts = path.parts[1:] if path.anchor else path.parts
    for index, part in enumerate(parts):
        if not (literal / part).exists():
            return str(Path(glob.escape(str(literal)), *parts[index:]))
        literal /= part
    return glob.escape(str(literal))
