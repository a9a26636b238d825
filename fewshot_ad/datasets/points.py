"""Files of the position of each pixel: organized point clouds, and depth images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array
from fewshot_ad.documents.yaml_text import read_yaml
from fewshot_ad.errors import DatasetError, ImageError
from fewshot_ad.host.lifetime import native_work
from fewshot_ad.images.reading import file_content

DEPTH, DEPTH_INFO = "_depth.png", "_info_depth.yaml"
# Of the one camera that rendered all images of Eyecandies, in pixels; its axis meets the middle of the image.
# Source: the publisher's page.
FOCAL_LENGTH = 711.11


def positions_beside(image: Path) -> Path | None:
    """The file of the position of each pixel of an image, by where MVTec 3D-AD and Eyecandies have it.

    Args:
        image: A file in a folder `rgb`, whose positions are `../xyz/NAME.tiff`; or `NUMBER_image_N.png`, whose depths
            are `NUMBER_depth.png`.

    Returns:
        None where there is no such file.
    """
    if image.parent.name == "rgb":
        found = image.parent.parent / "xyz" / f"{image.stem}.tiff"
    elif rendered := re.fullmatch(r"(.+)_image_\d", image.stem):
        found = image.with_name(f"{rendered[1]}{DEPTH}")
    else:
        return None
    return found if found.is_file() else None


@native_work()
def read_points(path: Path, hw: tuple[int, int]) -> Float32Array:
    """Read a TIFF file of three floating-point channels, x, y and z, or a depth image of Eyecandies.

    Args:
        path: The file; of a depth image, a PNG file of 16 bits with its range in the YAML file beside it.
        hw: Height and width of the image whose pixels the positions are of.

    Returns:
        (H, W, 3) float32; all 0 where the scanner saw nothing.

    Raises:
        DatasetError: The file is missing, damaged, of another kind or does not fit the image.
    """
    if path.name.endswith(DEPTH):
        return _seen_by_camera(_values(path, np.uint16, hw), *_depth_range(path))
    values = _values(path, np.float32, (*hw, 3))
    # OpenCV turns the order of the channels around. A position that is not finite is none.
    points = np.ascontiguousarray(values[..., ::-1])
    points[~np.isfinite(points).all(2)] = 0
    return points


def _values(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        content = file_content(path)
    except ImageError as error:
        raise DatasetError(f"{path}: {error}") from error
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if values is None or values.dtype != dtype or values.shape != shape:
        got = "no image" if values is None else f"{values.dtype} of {values.shape}"
        raise DatasetError(
            f"{path}: expected {np.dtype(dtype)} positions of {shape}, got {got}. Save them so, for an image of "
            "the same size; those of a dataset come with its images in one release."
        )
    return values


def _depth_range(path: Path) -> tuple[float, float]:
    """Depths in meters that the smallest and the largest number of a depth image stand for."""
    info = path.with_name(path.name.removesuffix(DEPTH) + DEPTH_INFO)
    content = read_yaml(info, DatasetError, "the range of a depth image in YAML").content
    try:
        nearest, farthest = (float(content["normalization"][end]) for end in ("min", "max"))
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{info}: expected normalization with the numbers min and max, got something else. Copy it from the "
            "release of the dataset that the images are from."
        ) from error
    return nearest, farthest


def _seen_by_camera(depths: np.ndarray[Any, np.dtype[Any]], nearest: float, farthest: float) -> Float32Array:
    """Where each pixel of a depth image lies from the camera, in meters: x to the right, y down, z along its axis."""
    height, width = depths.shape
    z = depths.astype(np.float32) / np.float32(65535) * np.float32(farthest - nearest) + np.float32(nearest)
    x = (np.arange(width, dtype=np.float32) - width / 2)[None, :] * z / np.float32(FOCAL_LENGTH)
    y = (np.arange(height, dtype=np.float32) - height / 2)[:, None] * z / np.float32(FOCAL_LENGTH)
    return np.stack([x, y, z], axis=2).astype(np.float32)
