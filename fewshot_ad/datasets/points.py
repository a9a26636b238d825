"""Files of the position of each pixel: organized point clouds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array
from fewshot_ad.errors import DatasetError, ImageError
from fewshot_ad.images.reading import file_content
from fewshot_ad.lifetime import native_work


@native_work()
def read_points(path: Path, hw: tuple[int, int]) -> Float32Array:
    """Read a TIFF file of three floating-point channels, x, y and z.

    Args:
        path: The file.
        hw: Height and width of the image whose pixels the positions are of.

    Returns:
        (H, W, 3) float32; all 0 where the scanner saw nothing.

    Raises:
        DatasetError: The file is missing, damaged, of another kind or does not fit the image.
    """
    try:
        content = file_content(path)
    except ImageError as error:
        raise DatasetError(f"{path}: {error}") from error
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if values is None or values.dtype != np.float32 or values.shape != (*hw, 3):
        got = "no image" if values is None else f"{values.dtype} of {values.shape}"
        raise DatasetError(
            f"{path}: expected float32 positions of {(*hw, 3)}, got {got}. Copy image and positions from the same "
            "release of the dataset."
        )
    # OpenCV turns the order of the channels around. A position that is not finite is none.
    points = np.ascontiguousarray(values[..., ::-1])
    points[~np.isfinite(points).all(2)] = 0
    return points
