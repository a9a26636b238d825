"""What users pass as images of a method that needs the position of each pixel, and how they are read."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_ad.arguments import image_sources
from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.batch import Reading, read
from fewshot_ad.datasets.points import positions_beside, read_points
from fewshot_ad.enrollment.support import SupportSet, distinct_names, read_support
from fewshot_ad.errors import DatasetError, ImageError, SupportSetError, sentence
from fewshot_ad.images import ColorOrder, ImageSource, expand_sources
from fewshot_ad.zoo.components.colored_points import CHANNELS, colored_points

# Beyond it, squares of distances are no longer numbers.
FARTHEST = 1e9
# Of many images that cannot be used, so many are named.
NAMED = 3


def read_scan(source: ImageSource | ImageError, color: ColorOrder) -> tuple[Reading, Float32Array | None]:
    """Read one image and its positions.

    Args:
        source: A file with its positions beside it, see `positions_beside`; or (H, W, 6), see `colored_points`. An
            error stands for one that was not even found.
        color: Channel order of an array.

    Returns:
        The image as `batch.read` gives it, or why it, or its positions, cannot be read; and (H, W, 6) float32, None
        where there is an error.
    """
    start = time.perf_counter()
    try:
        reading = read(source if isinstance(source, ImageError) else _color_of(source), color)
        if isinstance(reading.pixels, ImageError):
            return reading, None
        scan = _with_positions(source, reading.pixels)
    except ImageError as error:
        name = Path(source).name if isinstance(source, (str, os.PathLike)) else ""
        return Reading(name, error, (time.perf_counter() - start) * 1e3), None
    return dataclasses.replace(reading, milliseconds=(time.perf_counter() - start) * 1e3), scan


def read_scans(
    images: ImageSource | Iterable[ImageSource], color: ColorOrder, progress: Progress | None = None
) -> tuple[SupportSet, list[Float32Array]]:
    """Read good images and their positions. One without positions is left out and noted, as an unreadable one is.

    Args:
        images: Images in the forms of `read_scan`, or folders and globs of files.
        color: Channel order of arrays.
        progress: Called as `progress("read", done, total)`.

    Returns:
        The support set, and of each of its images (H, W, 6) float32.

    Raises:
        SupportSetError: Nothing usable was given.
    """
    try:
        sources = expand_sources(image_sources(images))
    except ImageError as error:
        raise SupportSetError(f"no support set: {error}") from error
    usable, colors, left_out = [], [], list[str]()
    for index, source in enumerate(sources):
        try:
            colors.append(_color_of(source))
            usable.append(source)
        except ImageError as error:
            left_out.append(str(error) if isinstance(source, (str, os.PathLike)) else f"image[{index}]: {error}")
    if not usable:
        raise _none_of(left_out)
    support = read_support(colors, color, progress)
    source_of = dict(zip(distinct_names(colors), usable, strict=True))
    scans: list[Float32Array] = []
    without: set[int] = set()
    for i, image in enumerate(support.images):
        try:
            scans.append(_with_positions(source_of[image.name], image.pixels))
        except ImageError as error:
            without.add(i)
            left_out.append(str(error))
    if not scans:
        raise _none_of(left_out)
    notes = (*support.notes, *(f"left out, unusable: {why}" for why in left_out))
    return dataclasses.replace(support.without(without), notes=notes), scans


def _none_of(left_out: list[str]) -> SupportSetError:
    more = f" And {len(left_out) - NAMED} more." if len(left_out) > NAMED else ""
    said = " ".join(sentence(why) for why in left_out[:NAMED])
    return SupportSetError(f"none of {len(left_out)} image(s) can be used: {said}{more}")


def _color_of(source: Any) -> Any:
    """What `read_image` takes of a source.

    Raises:
        ImageError: It is neither a file nor an array with positions.
    """
    if isinstance(source, (str, os.PathLike)):
        # Before the colors are compared: two files of one color may differ in their positions.
        _positions_of(Path(source))
        return source
    array = _checked_array(source)[..., :3]
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 255:
        raise ImageError("expected R, G, B in 0..255, got other numbers.")
    if array.dtype.kind == "f" and 0 < array.max() <= 1:
        raise ImageError("expected R, G, B in 0..255, got 0..1. Multiply them by 255, and leave x, y, z alone.")
    return np.rint(array).astype(np.uint8)


def _checked_array(source: Any) -> np.ndarray[Any, np.dtype[Any]]:
    if (
        not isinstance(source, np.ndarray)
        or source.ndim != 3
        or source.shape[-1] != CHANNELS
        or 0 in source.shape
        or source.dtype.kind not in "fiu"
    ):
        got = f"{source.dtype} {source.shape}" if isinstance(source, np.ndarray) else type(source).__name__
        raise ImageError(
            f"expected a file of an image with the position of each pixel beside it, or an array (H, W, {CHANNELS}) of "
            f"R, G, B, x, y, z, got {got}."
        )
    return source


def _with_positions(source: Any, image: Uint8Array) -> Float32Array:
    """An image (H, W, 3) of a source with the position of each pixel.

    Raises:
        ImageError: There are none, or they are damaged or of another size.
    """
    if isinstance(source, (str, os.PathLike)):
        place, beside = f"{source}: ", _positions_of(Path(source))
        try:
            points = read_points(beside, (image.shape[0], image.shape[1]))
        except DatasetError as error:
            raise ImageError(sentence(str(error))) from error
    else:
        place, points = "", np.array(source[..., 3:], np.float32)
        points[~np.isfinite(points).all(2)] = 0
    if not points.any():
        raise ImageError(f"{place}expected the position of each pixel, got none: all are 0, or not finite.")
    if np.abs(points).max() > FARTHEST:
        raise ImageError(f"{place}expected positions within {FARTHEST:g}, got {np.abs(points).max():g}.")
    return colored_points(image, points)


def _positions_of(image: Path) -> Path:
    """The file of the positions of an image.

    Raises:
        ImageError: There is none.
    """
    beside = positions_beside(image)
    if beside is None:
        raise ImageError(
            f"{image}: expected the position of each pixel beside the image, got none: xyz/{image.stem}.tiff where the "
            "image is in a folder rgb/ (as in MVTec 3D-AD), or 000_depth.png beside 000_image_5.png (as in Eyecandies)."
        )
    return beside
