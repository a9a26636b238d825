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
        colors = [_color_of(source) for source in sources]
    except ImageError as error:
        raise SupportSetError(f"no support set: {error}") from error
    support = read_support(colors, color, progress)
    source_of = dict(zip(distinct_names(colors), sources, strict=True))
    scans: list[Float32Array] = []
    missing: dict[int, str] = {}
    for i, image in enumerate(support.images):
        try:
            scans.append(_with_positions(source_of[image.name], image.pixels))
        except ImageError as error:
            missing[i] = str(error)
    if not scans:
        raise SupportSetError(f"none of {len(missing)} image(s) can be used: {'; '.join(missing.values())}")
    notes = (*support.notes, *(f"left out, no positions: {why}" for why in missing.values()))
    return dataclasses.replace(support.without(missing), notes=notes), scans


def _color_of(source: Any) -> Any:
    """What `read_image` takes of a source.

    Raises:
        ImageError: It is neither a file nor an array with positions.
    """
    if isinstance(source, (str, os.PathLike)):
        return source
    array = _checked_array(source)
    if not np.isfinite(array).all() or array[..., :3].min() < 0 or array[..., :3].max() > 255:
        raise ImageError("expected R, G, B in 0..255 and finite x, y, z, got other numbers.")
    return np.rint(array[..., :3]).astype(np.uint8)


def _checked_array(source: Any) -> np.ndarray[Any, np.dtype[Any]]:
    if (
        not isinstance(source, np.ndarray)
        or source.ndim != 3
        or source.shape[-1] != CHANNELS
        or not np.issubdtype(source.dtype, np.number)
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
    if not isinstance(source, (str, os.PathLike)):
        return colored_points(image, np.asarray(source[..., 3:], np.float32))
    path = Path(source)
    beside = positions_beside(path)
    if beside is None:
        raise ImageError(
            f"{path}: expected the position of each pixel beside the image, got none: xyz/{path.stem}.tiff where the "
            "image is in a folder rgb/ (as in MVTec 3D-AD), or 000_depth.png beside 000_image_5.png (as in Eyecandies)."
        )
    try:
        return colored_points(image, read_points(beside, (image.shape[0], image.shape[1])))
    except DatasetError as error:
        raise ImageError(sentence(str(error))) from error
