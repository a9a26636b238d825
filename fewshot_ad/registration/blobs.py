"""What lies on the plain background of an image, one thing after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float64Array, Uint8Array
from fewshot_ad.images import Geometry
from fewshot_ad.registration.background import unlike_background

# Things are looked for at this working scale.
FIND_SIZE = 512
# Of what differs from the background, gaps of up to this many pixels of that scale are closed, and specks removed.
_CLOSE, _OPEN = 5, 3


class Blob(NamedTuple):
    """Something on the background, at the scale at which parts are looked for.

    Attributes:
        mask: (h, w) bool, its outline filled, within its box.
        box: x, y, width and height.
        area: In pixels.
        at_edge: Whether it reaches the edge of the image.
    """

    mask: BoolArray
    box: tuple[int, int, int, int]
    area: int
    at_edge: bool

    @property
    def centroid(self) -> Float64Array:
        """(x, y)."""
        rows, columns = np.nonzero(self.mask)
        return np.array([self.box[0] + columns.mean(), self.box[1] + rows.mean()])

    @property
    def reach(self) -> float:
        """The distance of its farthest pixel from its centroid."""
        rows, columns = np.nonzero(self.mask)
        return float(np.hypot(columns - columns.mean(), rows - rows.mean()).max())

    def on(self, shape: tuple[int, ...]) -> Uint8Array:
        """Its mask on the whole image, (H, W) uint8, 0 or 255."""
        x, y, width, height = self.box
        whole = np.zeros(shape[:2], np.uint8)
        whole[y : y + height, x : x + width] = 255 * self.mask.astype(np.uint8)
        return whole


def side_of(image_hw: tuple[int, ...]) -> float:
    """The square root of an image's area."""
    return float(image_hw[0] * image_hw[1]) ** 0.5


def at_find_scale(image: Uint8Array) -> Uint8Array:
    """An image (H, W, 3) uint8 RGB at the scale at which parts are looked for."""
    return Geometry.fit(image.shape[:2], FIND_SIZE, 1).scale(image)  # type: ignore[arg-type]


def blobs_of(content: Uint8Array) -> list[Blob] | None:
    """What lies on the plain background of an image (h, w, 3) uint8 RGB; None where the background is not plain."""
    unlike = unlike_background(content)
    if unlike is None:
        return None
    kernels = [cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) for side in (_CLOSE, _OPEN)]
    closed = cv2.morphologyEx(unlike.astype(np.uint8), cv2.MORPH_CLOSE, kernels[0])
    contours, _ = cv2.findContours(
        cv2.morphologyEx(closed, cv2.MORPH_OPEN, kernels[1]), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    return [_blob(contour, content.shape) for contour in contours]


def _blob(contour: Any, shape: tuple[int, ...]) -> Blob:
    x, y, width, height = cv2.boundingRect(contour)
    mask = np.zeros((height, width), np.uint8)
    cv2.drawContours(mask, [contour - np.array([x, y])], 0, 1, cv2.FILLED)
    at_edge = x <= 1 or y <= 1 or x + width >= shape[1] - 1 or y + height >= shape[0] - 1
    return Blob(mask > 0, (x, y, width, height), int(mask.sum()), at_edge)


def in_rows(blobs: Sequence[Blob], reach: float) -> list[Blob]:
    """Blobs in the order in which one reads: a row ends where the next one lies lower by most of a part's reach."""
    rows: list[list[Blob]] = []
    for blob in sorted(blobs, key=lambda blob: float(blob.centroid[1])):
        if rows and blob.centroid[1] - rows[-1][0].centroid[1] < 0.8 * reach:
            rows[-1].append(blob)
        else:
            rows.append([blob])
    return [blob for row in rows for blob in sorted(row, key=lambda blob: float(blob.centroid[0]))]
