"""Reads any supported image as RGB uint8, and maps between an image and the encoder's input."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, overload

import cv2
import imagesize
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.errors import ImageError


class PILImage(Protocol):
    """What is used of a PIL image; PIL itself is not needed."""

    def convert(self, mode: str) -> Any:
        """The image in another mode."""

    def getexif(self) -> Any:
        """Its EXIF record."""


ImageSource: TypeAlias = str | os.PathLike[str] | npt.NDArray[Any] | PILImage
ColorOrder: TypeAlias = Literal["rgb", "bgr"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".jp2", ".gif"})
MIN_SIDE = 16
MAX_PIXELS = 200_000_000
# Standard deviation, in pixels of the working scale, of the smoothing before the encoder: sensor noise and compression
# differ between two images of one part, and the encoder's first layers amplify them.
SMOOTHING = 0.7


def read_image(source: ImageSource, color: ColorOrder = "rgb") -> Uint8Array:
    """Convert any supported image to an RGB array.

    Files are decoded by OpenCV: EXIF orientation is applied, CMYK and palette images are converted to RGB, an alpha
    channel is dropped, 16 bits are scaled to 8 over their full range.

    Args:
        source: A path; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, uint16 (full range), float
            in 0..1 or bool; or a PIL image.
        color: Channel order of an array; ignored for files and PIL images, whose order is known.

    Returns:
        Array (H, W, 3) uint8, RGB, C-contiguous. A contiguous RGB uint8 array is returned as it is, not copied.

    Raises:
        ImageError: The image cannot be used; the message says why and what to do.
    """
    if isinstance(source, (str, os.PathLike)):
        return _decode(Path(source))
    if isinstance(source, np.ndarray):
        return _from_array(source, color, "the array")
    if hasattr(source, "convert") and hasattr(source, "getexif"):
        return _from_pil(source)
    raise ImageError(
        f"expected a path, a numpy array or a PIL image, got {type(source).__name__}. "
        "Convert it first, for example with numpy.asarray(...)."
    )


def list_images(source: str | os.PathLike[str]) -> list[Path]:
    """Expand a folder, a glob or a file name into image paths, in sorted order.

    Args:
        source: A folder (its images, not its subfolders), a glob such as `good/*.png`, or one file.

    Raises:
        ImageError: Nothing matches, or the folder holds no image.
    """
    path = Path(source)
    if path.is_dir():
        try:
            entries = sorted(path.iterdir())
        except OSError as error:
            raise ImageError(
                f"{path}: the folder cannot be listed ({error.strerror}). Check the permissions."
            ) from error
        # macOS and copying programs leave hidden files behind, whose names begin with a dot.
        images = [p for p in entries if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")]
        if not images:
            names = [p.name for p in entries][:5]
            raise ImageError(
                f"expected images ({', '.join(sorted(SUFFIXES))}) in {path}, found none"
                f"{' but ' + ', '.join(names) if names else ' (the folder is empty)'}. Name the folder that "
                "holds the images themselves."
            )
        return images
    if path.exists():
        return [path]
    matches = sorted(p for p in map(Path, glob.glob(str(source), recursive=True)) if p.is_file())
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
    images: ImageSource | Iterable[ImageSource], keep_errors: Literal[True]
) -> list[ImageSource | ImageError]: ...


def expand_sources(images: ImageSource | Iterable[ImageSource], keep_errors: bool = False) -> list[Any]:
    """Flatten one or several images, in any form that users may pass, into a list of single images.

    Args:
        images: One image or an iterable of images. Folders and globs are expanded; an array (N, H, W, 3) counts as N
            images.
        keep_errors: Put the error of an entry of an iterable in its place, instead of raising it.

    Raises:
        ImageError: A folder or glob holds no image.
    """
    if isinstance(images, (str, os.PathLike)):
        return list(list_images(images))
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if not isinstance(images, Iterable):
        return [images]
    sources: list[Any] = []
    for image in images:
        try:
            sources.extend(list_images(image) if isinstance(image, (str, os.PathLike)) else [image])
        except ImageError as error:
            if not keep_errors:
                raise
            sources.append(error)
    return sources


def _decode(path: Path) -> Uint8Array:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: expected an image, but the file does not exist. Check the path.") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}). Check the path and the permissions.") from error
    if not data:
        raise ImageError(f"{path}: expected an image, got an empty file (0 bytes). Copy or record it again.")
    # The header holds the size, so a decompression bomb is refused before memory is allocated for it.
    try:
        width, height = imagesize.get(io.BytesIO(data))
    except Exception:  # imagesize cannot parse the header; OpenCV decides below whether this is an image
        width, height = -1, -1
    _check_size(height, width, str(path), known=width > 0)
    buffer = np.frombuffer(data, np.uint8)
    if data[:4] == b"GIF8":
        return _decode_gif(buffer, path)
    # OpenCV prints a warning about a broken file; the error below says it instead.
    level = cv2.utils.logging.setLogLevel(0)
    try:
        pixels = cv2.imdecode(buffer, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ImageError(f"{path}: OpenCV cannot decode it ({error.err}). Save it as PNG or JPEG.") from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        if width > 0:
            raise ImageError(
                f"{path}: expected a whole image of {width} x {height} pixels, but the file is truncated or "
                f"damaged ({len(data)} bytes). Copy or record it again."
            )
        raise ImageError(
            f"{path}: expected an image (PNG, JPEG, BMP, TIFF, WebP), but the content is none of these "
            f"(it starts with {data[:8]!r}). Check that the file really is a picture."
        )
    return _from_array(pixels, "rgb", str(path))


def _decode_gif(buffer: Uint8Array, path: Path) -> Uint8Array:
    try:
        ok, animation = cv2.imdecodeanimation(buffer, 0, 2)
    except (AttributeError, cv2.error) as error:
        raise ImageError(f"{path}: this OpenCV cannot read GIF ({error}). Save the image as PNG.") from error
    if not ok or not animation.frames:
        raise ImageError(f"{path}: the GIF is truncated or damaged. Save the image as PNG.")
    if len(animation.frames) > 1:
        raise ImageError(
            f"{path}: expected one image, got an animated GIF of several frames. Save the frame you mean as PNG."
        )
    frame = animation.frames[0]
    return _from_array(frame[..., :3], "bgr", str(path))


def _from_pil(image: Any) -> Uint8Array:
    # PIL is not a dependency of this package, but installed where a PIL image comes from.
    from PIL import ImageOps

    try:
        upright = ImageOps.exif_transpose(image)
        deep = upright.mode.startswith("I") or upright.mode == "F"
        pixels = np.asarray(upright if deep else upright.convert("RGB"))
    except OSError as error:
        raise ImageError(f"the PIL image cannot be decoded ({error}). Copy or record the file again.") from error
    if pixels.dtype == np.int32 and pixels.min() >= 0 and pixels.max() <= 65535:
        pixels = pixels.astype(np.uint16)  # PIL's mode for 16-bit gray
    return _from_array(pixels, "rgb", "the PIL image")


def _check_size(height: int, width: int, name: str, known: bool = True) -> None:
    if known and height * width > MAX_PIXELS:
        raise ImageError(
            f"{name}: expected at most {MAX_PIXELS // 1_000_000} megapixels, got {width} x {height} = "
            f"{height * width / 1e6:.0f} megapixels. Scale it down or cut it into tiles."
        )
    if known and min(height, width) < MIN_SIDE:
        raise ImageError(
            f"{name}: expected at least {MIN_SIDE} x {MIN_SIDE} pixels, got {width} x {height}. "
            "Such an image is too small to inspect."
        )


def _from_array(array: npt.NDArray[Any], color: ColorOrder, name: str) -> Uint8Array:
    if color not in ("rgb", "bgr"):
        raise ImageError(f"expected color='rgb' or 'bgr', got {color!r}.")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        hint = " It looks like channels first: use array.transpose(1, 2, 0)." if array.shape[:1] in ((1,), (3,)) else ""
        raise ImageError(f"{name}: expected shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}.{hint}")
    _check_size(array.shape[0], array.shape[1], name)
    array = _to_uint8(array, name)
    if array.ndim == 2:
        return cv2.cvtColor(array, cv2.COLOR_GRAY2RGB)
    if color == "bgr":
        return cv2.cvtColor(array, cv2.COLOR_BGRA2RGB if array.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(array if array.shape[2] == 3 else array[..., :3])


def _to_uint8(array: npt.NDArray[Any], name: str) -> Uint8Array:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        # 65535 = 257 * 255, so this maps the full range to the full range, rounded to the nearest.
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ImageError(f"{name}: expected finite floats in 0..1, got NaN or infinity. Correct the source.")
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 1:
            raise ImageError(
                f"{name}: expected floats in 0..1, got {low:.4g}..{high:.4g}. Divide by the full scale, or convert "
                "to uint8."
            )
        return np.rint(array * 255).astype(np.uint8)
    raise ImageError(
        f"{name}: expected dtype uint8, uint16 or float in 0..1, got {array.dtype}. "
        "Convert with array.astype(numpy.uint8) if the values are 0..255."
    )


@dataclass(frozen=True)
class Geometry:
    """The mapping between images of one size and the encoder's input.

    An image keeps its aspect ratio: it is scaled to an area of about `image_size` squared pixels, and its right and
    bottom edges are padded by mirroring, to a multiple of the encoder's stride. Nothing is cropped.

    Attributes:
        image_hw: Height and width of the image in pixels.
        content_hw: Height and width of the scaled image.
        input_hw: Height and width of the encoder's input: the scaled image plus the padding.
    """

    image_hw: tuple[int, int]
    content_hw: tuple[int, int]
    input_hw: tuple[int, int]

    @classmethod
    def fit(cls, image_hw: tuple[int, int], image_size: int, multiple: int) -> Geometry:
        """The geometry of images of one size at a working scale.

        Args:
            image_hw: Height and width in pixels.
            image_size: Working scale: the square root of the scaled image's area, in pixels.
            multiple: Each side of the encoder's input is a multiple of this.
        """
        height, width = image_hw
        scale = image_size / (height * width) ** 0.5
        content = (max(multiple, round(height * scale)), max(multiple, round(width * scale)))
        padded = (-(-content[0] // multiple) * multiple, -(-content[1] // multiple) * multiple)
        return cls((height, width), content, padded)

    def to_input(self, image: Uint8Array) -> Uint8Array:
        """Scale and pad an image (H, W, 3) uint8 to the encoder's input (`input_hw`, 3) uint8."""
        return self.pad(self.scale(image))

    def scale(self, image: Uint8Array) -> Uint8Array:
        """Scale an image (H, W, 3) uint8 to `content_hw` and smooth it by `SMOOTHING`."""
        height, width = self.content_hw
        # OpenCV vectorizes exact halving but not general area averaging: 0.2 ms instead of 1.6 ms from 1024 x 1024 to
        # 256 x 256, with the same result to within one gray level.
        while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
            half = (image.shape[1] // 2, image.shape[0] // 2)
            image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
        if image.shape[:2] != self.content_hw:
            shrinks = height * width < self.image_hw[0] * self.image_hw[1]
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return cv2.GaussianBlur(image, (5, 5), SMOOTHING)

    def pad(self, content: Uint8Array) -> Uint8Array:
        """Pad a scaled image (h, w, 3) to `input_hw` by mirroring it at its right and bottom edges."""
        bottom, right = self.input_hw[0] - self.content_hw[0], self.input_hw[1] - self.content_hw[1]
        if bottom or right:
            content = cv2.copyMakeBorder(content, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
        return content

    def crop(self, input_map: Float32Array) -> Float32Array:
        """Remove the padding from a map (`input_hw`) at the resolution of the encoder's input."""
        return input_map[: self.content_hw[0], : self.content_hw[1]]

    def content_mask(self, content: Uint8Array | None = None) -> Uint8Array:
        """Mask of the encoder's input that is 0 on the padding.

        Args:
            content: Mask (h, w) uint8 of the scaled image; None = 255 everywhere.

        Returns:
            (`input_hw`) uint8.
        """
        mask = np.zeros(self.input_hw, np.uint8)
        mask[: self.content_hw[0], : self.content_hw[1]] = 255 if content is None else content
        return mask

    def scale_xy(self) -> tuple[float, float]:
        """Number of image pixels per pixel of the scaled image, along x and y."""
        return self.image_hw[1] / self.content_hw[1], self.image_hw[0] / self.content_hw[0]


def inside_patches(mask: Uint8Array, grid_hw: Sequence[int], partly: bool = False) -> npt.NDArray[np.bool_]:
    """Which patches of a grid lie inside a mask.

    Args:
        mask: (H, W) uint8 of 0 and 255.
        grid_hw: Height and width of the grid.
        partly: Whether patches count of which only some pixels lie inside.

    Returns:
        (h, w) bool, True = inside.
    """
    coverage = cv2.resize(mask, (grid_hw[1], grid_hw[0]), interpolation=cv2.INTER_AREA)
    return coverage >= (1 if partly else 250)
