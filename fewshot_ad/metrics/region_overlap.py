"""Per-region overlap: how much of each defect an anomaly map finds, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import BoolArray, Float64Array
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.metrics.ranking import same_shape, share


def region_weights(mask: BoolArray) -> tuple[Float64Array, int]:
    """What each defective pixel adds to the overlap of its region.

    Args:
        mask: (H, W) bool, True = defect.

    Returns:
        One over the size of its 8-connected region for each True pixel, row by row; and the number of regions.
    """
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    inside = labels[mask]
    return 1 / np.bincount(inside, minlength=count)[inside], count - 1


def area_up_to(rates: npt.NDArray[Any], overlaps: npt.NDArray[Any], limit: float) -> Float64Array:
    """Area under curves that start at (0, 0), up to a rate, by trapezoids, divided by that rate.

    Args:
        rates: (..., n) false positive rates, not falling along n, 1 at the end.
        overlaps: (..., n) overlaps at those rates.
        limit: 0..1, zero excluded.

    Returns:
        (...) areas; NaN where rates or overlaps are.
    """
    if not 0 < limit <= 1:
        raise BenchmarkError(f"expected a limit of false positives above 0 and up to 1, got {limit}.")
    width = np.diff(rates, axis=-1, prepend=0)
    rise = np.diff(overlaps, axis=-1, prepend=0)
    # What lies beyond the limit is cut off, in the step that crosses it along the straight line.
    inside = np.clip(limit - (rates - width), 0, width)
    cut = np.divide(inside, width, out=np.zeros_like(inside), where=width > 0)
    return (inside * (overlaps - rise + rise * cut / 2)).sum(axis=-1) / limit


def au_pro(maps: Sequence[npt.NDArray[Any]], masks: Sequence[BoolArray], limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false positive rate, scaled to 0..1.

    At each threshold, the overlap is the share of a connected defect region that is at or above it, averaged over
    all regions of all images; the false positive rate is the share of all good pixels that are.

    Args:
        maps: (H, W) float maps, higher = worse; good images belong in, too.
        masks: (H, W) bool, True = defect.
        limit: False positive rate up to which the area is taken.

    Returns:
        0..1; NaN if there is no defect region or no good pixel.

    Source: Bergmann et al. 2021 (MVTec AD), section 4.1.
    """
    weighed = []
    for heat, mask in zip(maps, masks, strict=True):
        same_shape(heat, mask)
        weights, regions = region_weights(mask)
        weighed.append((heat[~mask], heat[mask], weights, regions))
    return _area_under_overlap(weighed, limit)


def _area_under_overlap(weighed: Sequence[tuple[Any, Any, Float64Array, int]], limit: float) -> float:
    """Area from each image's scores of good pixels, of weighed pixels, their weights, and number of regions."""
    if not weighed:
        return float("nan")
    good, inside, weights = (np.concatenate([part[i] for part in weighed]) for i in range(3))
    regions = sum(part[3] for part in weighed)
    distinct, place = np.unique(np.concatenate([good, inside]), return_inverse=True)
    rates = np.cumsum(np.bincount(place[: len(good)], minlength=len(distinct))[::-1])
    overlaps = np.cumsum(np.bincount(place[len(good) :], weights, minlength=len(distinct))[::-1])
    return float(area_up_to(share(rates, len(good)), share(overlaps, regions), limit)) if len(distinct) else np.nan


@dataclass(frozen=True, eq=False)
class SaturatedRegion:
    """A defect of which a part is enough, such as the place where one of several alike parts is missing.

    Attributes:
        mask: (H, W) bool, True = the defect, of one or more pieces.
        saturation: How much of it is enough: pixels, or a share of its area.
        relative: Whether it is a share.
    """

    mask: BoolArray
    saturation: float
    relative: bool = False

    @property
    def enough(self) -> float:
        """Pixels that count as all of it: at most its area. A share is rounded down, as the paper's authors do."""
        area = int(self.mask.sum())
        enough = self.saturation * area if self.relative else min(self.saturation, area)
        if not 0 < enough <= area:
            raise BenchmarkError(
                f"expected a defect of one pixel at least and a saturation of more than 0 pixels or a share in 0..1, "
                f"got {area} pixels and {self.saturation} ({'a share' if self.relative else 'pixels'})."
            )
        return max(1, int(enough)) if self.relative else enough


def spro(predicted: Sequence[BoolArray], regions: Sequence[Sequence[SaturatedRegion]]) -> float:
    """Saturated per-region overlap of binary predictions, averaged over all regions; NaN without a region.

    Args:
        predicted: (H, W) bool, True = said to be defective; one an image.
        regions: The defects of each image.

    Source: Bergmann et al. 2022 (MVTec LOCO AD), section 4.
    """
    overlaps = []
    for said, defects in zip(predicted, regions, strict=True):
        for defect in defects:
            same_shape(said, defect.mask)
            overlaps.append(min(1.0, int((said & defect.mask).sum()) / defect.enough))
    return float(np.mean(overlaps)) if overlaps else float("nan")


def au_spro(maps: Sequence[Any], regions: Sequence[Sequence[SaturatedRegion]], limit: float = 0.05) -> float:
    """Area under the curve of saturated per-region overlap up to a false positive rate, scaled to 0..1.

    Args:
        maps: (H, W) float maps, higher = worse; good images belong in, too.
        regions: The defects of each image; they may overlap. None of a good one.
        limit: False positive rate, over the pixels that are in no defect, up to which the area is taken.

    Returns:
        0..1; NaN if there is no defect or no good pixel.

    Source: Bergmann et al. 2022 (MVTec LOCO AD), section 4.
    """
    weighed = []
    for heat, defects in zip(maps, regions, strict=True):
        weights, marked = saturated_weights(heat, defects)
        weighed.append((heat[~marked], heat[marked], weights[marked], len(defects)))
    return _area_under_overlap(weighed, limit)


def saturated_weights(heat: npt.NDArray[Any], defects: Sequence[SaturatedRegion]) -> tuple[Float64Array, BoolArray]:
    """What each pixel adds to the saturated overlaps of the defects it is in.

    Args:
        heat: (H, W) map, higher = worse.
        defects: Of this image.

    Returns:
        (H, W) weights, which sum to one a defect; (H, W) bool, True = in a defect.
    """
    weights, marked = np.zeros(heat.shape), np.zeros(heat.shape, bool)
    for defect in defects:
        same_shape(heat, defect.mask)
        place = np.flatnonzero(defect.mask)
        # Only the highest pixels count: those that fill the region up to what is enough.
        place = place[np.argsort(heat.ravel()[place])[::-1]]
        weights.ravel()[place] += np.clip(defect.enough - np.arange(len(place)), 0, 1) / defect.enough
        marked |= defect.mask
    return weights, marked


def pro(predicted: Sequence[BoolArray], masks: Sequence[BoolArray]) -> float:
    """Per-region overlap at one threshold: the share of each connected defect that is found, averaged over all.

    Args:
        predicted: (H, W) bool, True = said to be defective; one an image.
        masks: (H, W) bool, True = defect.

    Returns:
        0..1; NaN without a defect.

    Source: Bergmann et al. 2021 (MVTec AD), section 4.1.
    """
    regions = []
    for mask in masks:
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions.append([SaturatedRegion(labels == label, 1.0, relative=True) for label in range(1, count)])
    return spro(predicted, regions)
