"""Anomaly map -> regions: where an image looks anomalous, or nearly so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array

MAX_REGIONS = 20
# A place of a good part is worth showing from this share of the way to the map's threshold; likewise its severity.
NEAR_MISS = 0.85
# For a map that stays below its threshold although the score does not: from which share of the peak's height on.
PEAK_SHARE = 0.75
# Fragments of one defect, as shares of the map's longer side: a gap this wide is none; one as wide as the second is
# none either where the map stays above `JOIN_SHARE` of the way to the cut.
GAP, BRIDGE = 0.03, 0.12
JOIN_SHARE = 0.75
# Where a map is nothing but specks, the search for boxes inside boxes is for the worst alone.
MAX_AREAS = 10 * MAX_REGIONS


@dataclass(frozen=True)
class Region:
    """One place of an image that looks anomalous, or nearly so: a defect with its fragments.

    Attributes:
        box: (x, y, width, height) in pixels of the image.
        area: Number of pixels in it that count as anomalous, to the working scale's accuracy.
        peak: (x, y) of its highest anomaly, in pixels of the image.
        severity: Anomaly at the peak on the fixed scale: 0 = median good patch, 1 = threshold of the map.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: tuple[int, int]
    severity: float

    def as_dict(self) -> dict[str, Any]:
        """The region as plain JSON types."""
        return {"box": list(self.box), "area": self.area, "peak": list(self.peak), "severity": self.severity}


@dataclass(frozen=True)
class MapScale:
    """The fixed color scale of a product's heatmaps, in distance units.

    Attributes:
        median_good: Distance of a median patch of held-out good images; 0 on the scale.
        threshold: The value that the map of a good image stays below, set from the held-out maps' peaks as the
            score's threshold is from the held-out scores; 1 on the scale. A few pixels above it alone do not reject a
            part: the score decides.
    """

    median_good: float
    threshold: float

    def apply(self, anomaly_map: Float32Array) -> Float32Array:
        """Distances -> 0 at the median good patch, 1 at the threshold (not clipped)."""
        return (anomaly_map - np.float32(self.median_good)) / np.float32(self.threshold - self.median_good)


def find_regions(heat: Float32Array, map_scale: MapScale, image_hw: tuple[int, int]) -> tuple[Region, ...]:
    """Defects of an anomalous image, from its map.

    A pixel counts from the map's threshold up. Where the score says anomalous but the smoothed map stays below (a
    defect of a few pixels), the surroundings of the highest peak count, so there always is a "where". Areas that lie
    close together, or that a high ridge of the map joins, are one region: a ring, or a scratch with gaps.

    Args:
        heat: (h, w) float32 map at the working scale.
        map_scale: The product's fixed scale.
        image_hw: Height and width of the image, in whose pixels the regions are given.

    Returns:
        At most `MAX_REGIONS`, worst first.
    """
    return _regions(heat, anomalous_cut(heat, map_scale), map_scale, image_hw)


def find_near_misses(heat: Float32Array, map_scale: MapScale, image_hw: tuple[int, int]) -> tuple[Region, ...]:
    """Places of a good image whose map comes close to its threshold, or above; as `find_regions`, or none."""
    return _regions(heat, near_miss_cut(map_scale), map_scale, image_hw)


def anomalous_cut(heat: Float32Array, map_scale: MapScale) -> float:
    """The distance from which a pixel of an anomalous image's map (h, w) float32 counts."""
    top, median = float(heat.max()), map_scale.median_good
    if top >= map_scale.threshold:
        return map_scale.threshold
    return min(top, _on_the_way(median, max(top, median), PEAK_SHARE))


def near_miss_cut(map_scale: MapScale) -> float:
    """The distance from which a pixel of a good image's map counts."""
    return _on_the_way(map_scale.median_good, map_scale.threshold, NEAR_MISS)


def _regions(heat: Float32Array, cut: float, map_scale: MapScale, image_hw: tuple[int, int]) -> tuple[Region, ...]:
    areas = sorted(_areas(heat, cut, map_scale.median_good), key=lambda area: -area.height)[:MAX_AREAS]
    return tuple(_region(area, heat.shape, map_scale, image_hw) for area in _outermost(areas)[:MAX_REGIONS])


@dataclass(frozen=True)
class _Area:
    """A defect in pixels of the map: its box without the right and bottom ends, its size, its peak and that's value."""

    left: int
    top: int
    right: int
    bottom: int
    pixels: int
    peak: tuple[int, int]
    height: float


def _areas(heat: Float32Array, cut: float, median_good: float) -> Iterator[_Area]:
    counts = (heat >= cut).astype(np.uint8)
    labels, boxes = _fragments_joined(heat, counts, _on_the_way(median_good, cut, JOIN_SHARE))
    for label, (x, y, width, height) in enumerate(boxes, start=1):
        window = np.s_[y : y + height, x : x + width]
        own = (labels[window] == label) & (counts[window] > 0)
        if not own.any():  # a ridge that leads nowhere
            continue
        rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
        values = np.where(own, heat[window], -np.inf)
        row, column = divmod(int(np.argmax(values)), width)
        yield _Area(
            x + int(columns[0]),
            y + int(rows[0]),
            x + int(columns[-1]) + 1,
            y + int(rows[-1]) + 1,
            int(np.count_nonzero(own)),
            (x + column, y + row),
            float(values[row, column]),
        )


def _fragments_joined(
    heat: Float32Array, counts: Uint8Array, low: float
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.int32]], list[tuple[int, int, int, int]]]:
    """Labels from 1 on of the pixels that count and of what joins them, and each label's box."""
    side = max(heat.shape)
    away = np.zeros_like(heat) if counts.all() else cv2.distanceTransform(1 - counts, cv2.DIST_L2, cv2.DIST_MASK_3)
    # Half of a gap from either side.
    joined = (away <= GAP / 2 * side) | ((away <= BRIDGE / 2 * side) & (heat >= low))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(joined.astype(np.uint8), connectivity=8)
    return labels, [(int(x), int(y), int(width), int(height)) for x, y, width, height, _ in stats[1:]]


def _outermost(areas: list[_Area]) -> list[_Area]:
    """Areas, highest first, with those that lie in the box of a larger one, to a half at least, made a part of it."""
    kept: list[_Area] = []
    for area in sorted(areas, key=lambda area: -(area.right - area.left) * (area.bottom - area.top)):
        for i, outer in enumerate(kept):
            if _is_inside(area, outer):
                kept[i] = _united(area, outer)
                break
        else:
            kept.append(area)
    return sorted(kept, key=lambda area: -area.height)


def _is_inside(area: _Area, outer: _Area) -> bool:
    across = max(0, min(area.right, outer.right) - max(area.left, outer.left))
    down = max(0, min(area.bottom, outer.bottom) - max(area.top, outer.top))
    return 2 * across * down >= (area.right - area.left) * (area.bottom - area.top)


def _united(one: _Area, other: _Area) -> _Area:
    higher = max(one, other, key=lambda area: area.height)
    return _Area(
        min(one.left, other.left),
        min(one.top, other.top),
        max(one.right, other.right),
        max(one.bottom, other.bottom),
        one.pixels + other.pixels,
        higher.peak,
        higher.height,
    )


def _region(area: _Area, map_hw: tuple[int, ...], map_scale: MapScale, image_hw: tuple[int, int]) -> Region:
    per_y, per_x = image_hw[0] / map_hw[0], image_hw[1] / map_hw[1]
    left, top = int(area.left * per_x), int(area.top * per_y)
    right = min(image_hw[1], math.ceil(area.right * per_x))
    bottom = min(image_hw[0], math.ceil(area.bottom * per_y))
    peak = (int((area.peak[0] + 0.5) * per_x), int((area.peak[1] + 0.5) * per_y))
    severity = float(map_scale.apply(np.float32(area.height)))
    return Region((left, top, right - left, bottom - top), max(1, round(area.pixels * per_x * per_y)), peak, severity)


def _on_the_way(start: float, end: float, share: float) -> float:
    return start + share * (end - start)
