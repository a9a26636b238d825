"""Any image, from wherever it comes -> an RGB array."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images.channels import ColorOrder, to_rgb
from fewshot_ad.images.formats import decode
from fewshot_ad.images.limits import check_file_bytes
from fewshot_ad.images.pillow import from_pil
from fewshot_ad.images.sources import ImageSource, is_pil
from fewshot_ad.lifetime import native_work, waiting

CHUNK_BYTES = 1 << 20


@native_work()
def read_image(source: ImageSource, color: ColorOrder = "rgb", *, page: int | None = None) -> Uint8Array:
    """Convert any supported image to an RGB array.

    The content of a file decides what it is, not its name. EXIF orientation is applied, CMYK and palette images are
    converted to RGB, an alpha channel is dropped, 16 bits are scaled to 8 over their full range. What a decoder would
    have to guess, because the file is damaged, is refused.

    Args:
        source: See `ImageSource`.
        color: Channel order of an array; ignored for files and PIL images, whose order is known.
        page: Which page of a TIFF file, counted from 0; None refuses a file of several.

    Returns:
        Array (H, W, 3) uint8, RGB, C-contiguous. A contiguous RGB uint8 array is returned as it is, not copied.

    Raises:
        ImageError: The image cannot be used; the message says why and what to do.
    """
    if color not in ("rgb", "bgr"):
        raise ImageError(f"expected color='rgb' or 'bgr', got {color!r}.")
    if page is not None and (isinstance(page, bool) or not isinstance(page, int) or page < 0):
        raise ImageError(f"expected page=0 or more, got {page!r}.")
    try:
        return _read(source, color, page)
    except ImageError as error:
        raise ImageError(f"{_description(source)}: {error}") from error.__cause__


def _read(source: Any, color: ColorOrder, page: int | None) -> Uint8Array:
    if isinstance(source, (str, os.PathLike)):
        return decode(file_content(Path(source)), page)
    if isinstance(source, memoryview) and source.ndim > 1:
        return _from_array(_as_array(source), color)
    if isinstance(source, (bytes, bytearray, memoryview)):
        check_file_bytes(memoryview(source).nbytes)
        return decode(bytes(source), page)
    if isinstance(source, np.ndarray):
        return _from_array(source, color)
    if is_pil(source):
        return from_pil(source)
    if hasattr(source, "read"):
        return decode(_stream_content(source), page)
    if hasattr(source, "__array__"):
        return _from_array(_as_array(source), color)
    raise ImageError(
        f"expected a path, a numpy array, an encoded image or a PIL image, got {type(source).__name__}. "
        "Convert it first, for example with numpy.asarray(...)."
    )


def _description(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)):
        return str(source) or "an empty path"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the encoded image"
    if is_pil(source):
        return "the PIL image"
    if hasattr(source, "read"):
        return str(getattr(source, "name", "the file object"))
    return "the array" if hasattr(source, "__array__") else "the image"


def file_content(path: Path) -> bytes:
    """The bytes of an image's file.

    Raises:
        ImageError: It cannot be read, is no file, or is too large.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("expected an image, got a folder. Name a file in it.")
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISFIFO(status.st_mode):
            raise ImageError("expected an image file, got a device or a socket. Copy the image to a file.")
        check_file_bytes(status.st_size)
        # Fork and exit need not wait for a FIFO or a network.
        with waiting(), path.open("rb") as file:
            # One byte more than there are, so that the end is seen without a second buffer.
            return _limited(file, status.st_size + 1)
    except FileNotFoundError:
        raise ImageError("expected an image, but the file does not exist. Check the path.") from None
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror}). Check the path and the permissions.") from error
    except MemoryError as error:
        raise ImageError("expected enough memory to read it, but the system gives no more. Free some.") from error
    except ValueError as error:  # a null character, which no path can hold
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"expected a path, but no file can have this one ({error}). Check the path.") from error


def _stream_content(stream: Any) -> bytes:
    """All of a file object, from its start if it can go back there; its position stays."""
    try:
        with waiting():
            position = stream.tell() if stream.seekable() else None
            if position is not None:
                stream.seek(0)
            content = _limited(stream, CHUNK_BYTES)
            if position is not None:
                stream.seek(position)
        return content
    except ImageError:
        raise
    except Exception as error:  # a closed file, a broken connection, whatever an object raises
        raise ImageError(
            f"expected a file object that can be read, got {type(error).__name__}: {error}. Open it again."
        ) from error


def _limited(file: BinaryIO, first: int) -> bytes:
    chunks: list[bytes] = []
    count = 0
    while chunk := file.read(CHUNK_BYTES if chunks else max(first, CHUNK_BYTES)):
        if not isinstance(chunk, bytes):
            raise ImageError('expected a file opened for bytes, got text. Open it with mode "rb".')
        chunks.append(chunk)
        count += len(chunk)
        check_file_bytes(count)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _as_array(source: Any) -> Any:
    try:
        return np.asarray(source)
    except Exception as error:  # a tensor on another device, a lost table: each has its own class
        raise ImageError(
            f"expected something that becomes a numpy array, got {type(error).__name__}: {error}. "
            "Convert it first, for example with tensor.cpu().numpy()."
        ) from error


def _from_array(array: Any, color: ColorOrder) -> Uint8Array:
    if array.dtype.kind in "OUS":
        raise ImageError(
            f"expected one image, got an array of {array.size} objects or names. Give its items one by one, or all of "
            "them to what takes several images."
        )
    if np.ma.is_masked(array):
        raise ImageError(
            "expected an array without masked values, got one with some: what is to be seen there is not said. "
            "Fill them with array.filled(value)."
        )
    return to_rgb(np.asarray(array), color)
