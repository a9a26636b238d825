"""What is refused before memory is taken for it, and how a damaged file is told of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fewshot_ad.errors import ImageError

MIN_SIDE = 16
MAX_PIXELS = 200_000_000
# A longer strip keeps its aspect ratio in the encoder's input, which then becomes enormous.
MAX_ASPECT = 256
MAX_FILE_BYTES = 600_000_000
# Of one file and all that its decoder takes, so that reading stays below 1.4 GB.
MAX_MEMORY = 1_300_000_000
CUT = "Scale it down, or cut it into tiles."
AS_PNG = "Save it as PNG, or cut it into tiles."
FEWER_BITS = "Save it with 8 bits per channel, or cut it into tiles."


_most_pixels: ContextVar[int] = ContextVar("most_pixels", default=MAX_PIXELS)


@contextmanager
def at_most_pixels(count: int) -> Iterator[None]:
    """Refuse images of more pixels inside the block, before they are decoded; never more than `MAX_PIXELS`."""
    token = _most_pixels.set(min(count, MAX_PIXELS))
    try:
        yield
    finally:
        _most_pixels.reset(token)


def check_size(height: int, width: int) -> None:
    """Refuse an image of an impossible size.

    Raises:
        ImageError: Too small, too large or too long.
    """
    if height * width > (most := _most_pixels.get()):
        raise ImageError(
            f"expected at most {most / 1e6:g} megapixels, got {width} x {height} = "
            f"{height * width / 1e6:.0f} megapixels. Scale it down or cut it into tiles."
        )
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"expected at least {MIN_SIDE} x {MIN_SIDE} pixels, got {width} x {height}. "
            "Such an image is too small to inspect."
        )
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(
            f"expected sides of at most {MAX_ASPECT}:1, got {width} x {height} pixels. Cut the strip into pieces."
        )


def check_file_bytes(count: int) -> None:
    """Refuse a file that is too large to be read.

    Raises:
        ImageError: It has more bytes than `MAX_FILE_BYTES`.
    """
    if count > MAX_FILE_BYTES:
        raise ImageError(
            f"expected a file of at most {MAX_FILE_BYTES // 1_000_000} MB, got {count / 1e6:.0f} MB. "
            "Scale the image down or cut it into tiles."
        )


def check_memory(count: float, fix: str = CUT) -> None:
    """Refuse an image whose decoder would take too much memory.

    Args:
        count: Bytes that file, decoder and result take together.
        fix: What makes it smaller.

    Raises:
        ImageError: They are more than `MAX_MEMORY`.
    """
    if count > MAX_MEMORY:
        raise ImageError(
            f"expected an image that is read in at most {MAX_MEMORY // 1_000_000} MB of memory, got one that takes "
            f"{count / 1e6:.0f} MB. {fix}"
        )


def damaged(reason: str, height: int | None = None, width: int | None = None) -> ImageError:
    """The error of a file that breaks off or whose decoder would have to guess."""
    size = "" if height is None else f" of {width} x {height} pixels"
    return ImageError(
        f"expected a whole image{size}, but the file is truncated or damaged ({reason}). Copy or record it again."
    )


def several(what: str, fix: str = "Save the one you mean as PNG.") -> ImageError:
    """The error of a file that holds more than one image: judging one of them would overlook the others."""
    return ImageError(f"expected one image, got {what}. {fix}")
