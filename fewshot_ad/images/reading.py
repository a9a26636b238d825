"""Any image, from wherever it comes -> an RGB array."""

from __future__ import annotations

import inspect
import os
import stat
import time
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_ad.arguments import whole_number
from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError, sentence
from fewshot_ad.host.lifetime import native_work, waiting
from fewshot_ad.images.channels import ColorOrder, to_rgb
from fewshot_ad.images.formats import decode
from fewshot_ad.images.limits import check_file_bytes
from fewshot_ad.images.listing import advice_on_path
from fewshot_ad.images.pillow import from_pil
from fewshot_ad.images.sources import ImageSource, is_pil, is_tensor

CHUNK_BYTES = 1 << 20
# How long nothing may come out of a FIFO.
PIPE_WAIT_S = 10.0
PIPE_POLL_S = 0.01


@native_work()
def read_image(source: ImageSource, color: ColorOrder = "rgb", *, page: int | None = None) -> Uint8Array:
    """Convert any supported image to an RGB array.

    The content of a file decides what it is, not its name. EXIF orientation is applied, CMYK and palette images are
    converted to RGB, an alpha channel is dropped, 16 bits are scaled to 8 over their full range. What a decoder would
    have to guess, because the file is damaged, is refused.

    Args:
        source: See `ImageSource`.
        color: Channel order of an array; ignored for files and PIL images, whose order is known.
        page: Which page of a TIFF file, counted from 0; None refuses a file of several. Only files have pages.

    Returns:
        Array (H, W, 3) uint8, RGB, C-contiguous. A contiguous RGB uint8 array is returned as it is, not copied.

    Raises:
        ImageError: The image cannot be used; the message says why and what to do.
    """
    if color not in ("rgb", "bgr"):
        raise ImageError(f"expected color='rgb' or 'bgr', got {color!r}.")
    if page is not None:
        page = whole_number(page, "page", 0, error=ImageError)
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
    if hasattr(source, "read") and not is_pil(source):
        return decode(_stream_content(source), page)
    if page is not None:
        raise ImageError(f"expected no page of what is no file, got page={page}. Leave page out.")
    if isinstance(source, np.ndarray):
        return _from_array(source, color)
    if is_pil(source):
        return from_pil(source)
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
        if stat.S_ISFIFO(status.st_mode):
            return _pipe_content(path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("expected an image file, got a device or a socket. Copy the image to a file.")
        check_file_bytes(status.st_size)
        # Fork and exit need not wait for a network.
        with waiting(), path.open("rb") as file:
            # One byte more than there are, so that the end is seen without a second buffer.
            return _limited(file, status.st_size + 1)
    except FileNotFoundError:
        raise ImageError(_advice_on_missing(path)) from None
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror}). Check the path and the permissions.") from error
    except MemoryError as error:
        raise ImageError("expected enough memory to read it, but the system gives no more. Free some.") from error
    except ValueError as error:  # a null character, which no path can hold
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"expected a path, but no file can have this one ({error}). Check the path.") from error


def _advice_on_missing(path: Path) -> str:
    if path.is_symlink():
        return "expected an image, but this is a link to a file that does not exist. Mend or remove the link."
    return f"expected an image, but the file does not exist. {advice_on_path(path)}"


def _pipe_content(path: Path) -> bytes:
    """The bytes that come out of a FIFO, whose writer must come soon: it would hold up all other images."""
    until = time.monotonic() + PIPE_WAIT_S
    chunks: list[bytes] = []
    with waiting(), open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        while time.monotonic() < until:
            chunk = pipe.read(CHUNK_BYTES)
            if chunk:
                chunks.append(chunk)
                check_file_bytes(sum(map(len, chunks)))
                until = time.monotonic() + PIPE_WAIT_S
            elif chunk is not None and chunks:
                return b"".join(chunks)
            else:  # no writer yet, or nothing written yet
                time.sleep(PIPE_POLL_S)
    raise ImageError(
        f"expected a FIFO into which an image is written, but nothing more came within {PIPE_WAIT_S:.0f} seconds. "
        "Start the writer first, and close it behind the image."
    )


def _stream_content(stream: Any) -> bytes:
    """What a file object holds from its position on; where it can go back, it stays at that position."""
    if not callable(stream.read):
        raise ImageError("expected a file object, but its `read` is no method. Open the file with open(path, 'rb').")
    try:
        with waiting():
            position = stream.tell() if _can_seek(stream) else None
            content = _limited(stream, CHUNK_BYTES)
            if position is not None:
                stream.seek(position)
    except ImageError:
        raise
    except Exception as error:  # a closed file, a broken connection, whatever an object raises
        raise ImageError(
            f"expected a file object that can be read, got {type(error).__name__}: {sentence(error)} Open it again."
        ) from error
    if position and not content:
        raise ImageError(
            f"expected an image from the file object's position on, but that is its end (byte {position}). "
            "Rewind it: f.seek(0)."
        )
    return content


def _can_seek(stream: Any) -> bool:
    return bool(stream.seekable()) if hasattr(stream, "seekable") else False


def _limited(file: Any, first: int) -> bytes:
    chunks: list[bytes] = []
    count = 0
    while chunk := _as_bytes(file.read(CHUNK_BYTES if chunks else max(first, CHUNK_BYTES))):
        chunks.append(chunk)
        count += len(chunk)
        check_file_bytes(count)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _as_bytes(chunk: Any) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, (bytearray, memoryview)):
        return bytes(chunk)
    if isinstance(chunk, str):
        raise ImageError('expected a file opened for bytes, got text. Open it with mode "rb".')
    if chunk is None:
        raise ImageError(
            "expected the bytes of an image, but none have arrived yet. Make the file object a blocking one."
        )
    if inspect.isawaitable(chunk):
        if inspect.iscoroutine(chunk):
            chunk.close()  # Python would warn that nobody waited for it
        raise ImageError("expected a file object, got one to be awaited. Give the bytes: await f.read().")
    raise ImageError(
        f"expected a file object whose read() gives bytes, got {type(chunk).__name__}. Give the bytes themselves."
    )


def _as_array(source: Any) -> Any:
    try:
        if is_tensor(source):
            return _from_tensor(source)
        return np.asarray(source)
    except Exception as error:  # a tensor on another device, a lost table: each has its own class
        raise ImageError(
            f"expected something that becomes a numpy array, got {type(error).__name__}: "
            f"{sentence(error)} Convert it first, for example with tensor.detach().cpu().numpy()."
        ) from error


def _from_tensor(tensor: Any) -> Any:
    """A tensor of torch, from whatever device; its channels may come first, as torchvision has them."""
    array = tensor.detach().cpu().numpy()
    channels = (1, 3, 4)
    if array.ndim == 3 and array.shape[0] in channels and array.shape[2] not in channels:
        return np.ascontiguousarray(array.transpose(1, 2, 0))
    return array


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
