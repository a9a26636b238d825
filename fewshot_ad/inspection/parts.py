"""Several parts on one image, each with a verdict of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float32Array, Float64Array
from fewshot_ad.images import enlarging
from fewshot_ad.inspection.regions import Region

# x, y, width and height in pixels of the image.
Box: TypeAlias = tuple[int, int, int, int]
# The longest side of a map that is put together from those of the parts.
LONGEST_MAP = 1024


@dataclass(frozen=True, eq=False)
class PartCount:
    """How many parts an image shows, and what else.

    Attributes:
        found: Number of parts, of which some may be several that touch.
        expected: How many there should be; None for any number.
        others: x, y, width and height of things that are no part, in pixels of the image.
        least: How many parts there are at least, where some cannot be told apart or reach out of the image.
        most: And at most.
    """

    found: int
    expected: int | None
    others: tuple[Box, ...]
    least: int
    most: int

    @property
    def finding(self) -> str:
        """What is wrong, in words; empty if nothing is."""
        wrong = []
        if self.expected is not None and self.most < self.expected:
            wrong.append(f"{self.most} of {self.expected} parts, {self.expected - self.most} missing")
        if self.expected is not None and self.least > self.expected:
            wrong.append(f"{self.least} parts, {self.expected} expected")
        if self.others:
            count = len(self.others)
            wrong.append("something besides the parts" if count == 1 else f"{count} things besides the parts")
        return ", ".join(wrong)


class PlacedMap(NamedTuple):
    """The map of a part's own image.

    Attributes:
        working_map: (h, w) float32.
        image_hw: Height and width of the part's own image in pixels.
        forward: The affine matrix (2, 3) from (x, y) of the whole image to (x, y) of that.
    """

    working_map: Float32Array
    image_hw: tuple[int, ...]
    forward: Float64Array


def joined_map(maps: Iterable[PlacedMap], image_hw: tuple[int, ...], outside: float) -> Float32Array:
    """The maps of the parts of an image as one.

    Args:
        maps: Those of the parts.
        image_hw: Height and width of the image.
        outside: The value around them.

    Returns:
        (h, w) float32, its longest side `LONGEST_MAP` at most.
    """
    shrink = min(1.0, LONGEST_MAP / max(image_hw[:2]))
    height, width = (max(1, round(side * shrink)) for side in image_hw[:2])
    joined = np.full((height, width), -np.inf, np.float32)
    to_image = enlarging(image_hw[1] / width, image_hw[0] / height)
    for own, (own_h, own_w), forward in maps:
        rows, columns = own.shape
        to_own = (enlarging(columns / own_w, rows / own_h) @ np.vstack([forward, [0, 0, 1]]) @ to_image)[:2]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        placed = cv2.warpAffine(own, to_own, (width, height), flags=flags, borderValue=-1.0)
        np.maximum(joined, placed, out=joined, where=placed >= 0)
    return np.where(np.isfinite(joined), joined, np.float32(outside))


def to_image(forward: Float64Array, map_hw: tuple[int, ...], part_hw: tuple[int, ...]) -> Float64Array:
    """The matrix (2, 3) from (x, y) of a part's map to (x, y) of the image that it was cut from.

    Args:
        forward: From that image to the part's own one.
        map_hw: Height and width of the map.
        part_hw: Height and width of the part's own image.
    """
    back = np.vstack([cv2.invertAffineTransform(forward), [0, 0, 1]])
    return (back @ enlarging(part_hw[1] / map_hw[1], part_hw[0] / map_hw[0]))[:2]


def region_on_image(
    region: Region, counted: BoolArray, part_hw: tuple[int, ...], back: Float64Array, image_hw: tuple[int, ...]
) -> Region:
    """A region of a part's own image in pixels of the image that it was cut from.

    Args:
        region: In pixels of the part's own image.
        counted: (h, w) bool, what of its map counts as anomalous.
        part_hw: Height and width of the part's own image.
        back: See `to_image`.
        image_hw: Height and width of the image.
    """
    per_y, per_x = counted.shape[0] / part_hw[0], counted.shape[1] / part_hw[1]
    x, y, width, height = region.box
    left, top = int(x * per_x), int(y * per_y)
    rows, columns = np.nonzero(counted[top : round((y + height) * per_y) + 1, left : round((x + width) * per_x) + 1])
    # The edges of the pixels, not their centers.
    points = np.stack([left + columns, top + rows], axis=1)
    corners = np.concatenate([points + offset for offset in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))])
    placed = corners @ back[:, :2].T + back[:, 2] + 0.5
    last = np.array([image_hw[1] - 1, image_hw[0] - 1])
    first = np.clip(np.floor(placed.min(axis=0)).astype(int), 0, last)
    end = np.clip(np.ceil(placed.max(axis=0)).astype(int), first + 1, last + 1)
    peak = back[:, :2] @ [(region.peak[0] + 0.5) * per_x - 0.5, (region.peak[1] + 0.5) * per_y - 0.5] + back[:, 2]
    across, down = np.clip(np.rint(peak).astype(int), 0, last)
    box = (int(first[0]), int(first[1]), int(end[0] - first[0]), int(end[1] - first[1]))
    return Region(box, region.area, (int(across), int(down)), region.severity)
