"""Per-region overlap: the share of each defect that an anomaly map covers, large and small defects counting alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import BoolArray, Float64Array
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.metrics.ranking import ratio, require_same_shape


def au_pro(maps: Sequence[npt.NDArray[Any]], masks: Sequence[BoolArray], limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false positive rate, divided by that rate.

    At each threshold, the overlap is the share of a connected defect region that is at or above it, averaged over
    all regions of all images; the false positive rate is the share of all good pixels at or above it.

    Args:
        maps: (H, W) float maps, higher = worse, of good images as well.
        masks: (H, W) bool, True = defect.
        limit: False positive rate at which the curve is cut off, above 0 and up to 1.

    Returns:
        0..1; NaN if there is no defect region or no good pixel.

    Raises:
        BenchmarkError: A mask does not have its map's shape, or the limit is out of range.

    Source: Bergmann et al. 2021 (MVTec AD), section 4.1.
    """
    images = []
    for heat, mask in zip(maps, masks, strict=True):
        require_same_shape(heat, mask)
        weights, regions = region_weights(mask)
        images.append(_WeightedScores(heat[~mask], heat[mask], weights, regions))
    return _area_under_overlap(images, limit)


def au_spro(maps: Sequence[Any], regions: Sequence[Sequence[SaturatedRegion]], limit: float = 0.05) -> float:
    """Area under the curve of saturated per-region overlap up to a false positive rate, divided by that rate.

    Args:
        maps: (H, W) float maps, higher = worse, of good images as well.
        regions: The defects of each image, empty for a good image; they may overlap.
        limit: False positive rate, over the pixels that are in no defect, at which the curve is cut off.

    Returns:
        0..1; NaN if there is no defect or no good pixel.

    Raises:
        BenchmarkError: A mask does not have its map's shape, a saturation makes no sense, or the limit is out of range.

    Source: Bergmann et al. 2022 (MVTec LOCO AD), section 4.
    """
    images = []
    for heat, defects in zip(maps, regions, strict=True):
        weights, mask = saturated_weights(heat, defects)
        images.append(_WeightedScores(heat[~mask], heat[mask], weights[mask], len(defects)))
    return _area_under_overlap(images, limit)


def pro(predicted: Sequence[BoolArray], masks: Sequence[BoolArray]) -> float:
    """Per-region overlap at one threshold: the share of each connected defect that is covered, averaged over all.

    Args:
        predicted: (H, W) bool, one per image, True = judged defective.
        masks: (H, W) bool, True = defect.

    Returns:
        0..1; NaN if there is no defect.

    Raises:
        BenchmarkError: A prediction does not have its mask's shape.

    Source: Bergmann et al. 2021 (MVTec AD), section 4.1.
    """
    regions = []
    for mask in masks:
        count, labels = _connected_regions(mask)
        regions.append([SaturatedRegion(labels == label, 1.0, relative=True) for label in range(1, count + 1)])
    return spro(predicted, regions)


def spro(predicted: Sequence[BoolArray], regions: Sequence[Sequence[SaturatedRegion]]) -> float:
    """Saturated per-region overlap of binary predictions, averaged over all regions.

    Args:
        predicted: (H, W) bool, one per image, True = judged defective.
        regions: The defects of each image.

    Returns:
        0..1; NaN if there is no region.

    Raises:
        BenchmarkError: A prediction does not have its mask's shape, or a saturation makes no sense.

    Source: Bergmann et al. 2022 (MVTec LOCO AD), section 4.
    """
    overlaps = []
    for prediction, defects in zip(predicted, regions, strict=True):
        for defect in defects:
            require_same_shape(prediction, defect.mask)
            overlaps.append(min(1.0, int((prediction & defect.mask).sum()) / defect.enough))
    return float(np.mean(overlaps)) if overlaps else float("nan")


@dataclass(frozen=True, eq=False)
class SaturatedRegion:
    """A defect that counts as found once enough of it is covered, such as the empty place of one of several like parts.

    Attributes:
        mask: (H, W) bool, True = the defect, of one or more pieces.
        saturation: How much of it must be covered: a number of pixels, or a share of its area in 0..1.
        relative: Whether `saturation` is a share.
    """

    mask: BoolArray
    saturation: float
    relative: bool = False

    @property
    def enough(self) -> float:
        """Number of pixels that count as the whole defect, at most its area; a share is rounded down.

        Raises:
            BenchmarkError: The mask is empty, or the saturation is not above 0 or is a share above 1.

        Source: rounding as in the evaluation code of MVTec LOCO AD.
        """
        area = int(self.mask.sum())
        enough = self.saturation * area if self.relative else min(self.saturation, area)
        if not 0 < enough <= area:
            raise BenchmarkError(
                f"expected a defect of one pixel at least and a saturation of more than 0 pixels or a share in 0..1, "
                f"got {area} pixels and {self.saturation} ({'a share' if self.relative else 'pixels'})."
            )
        return max(1, int(enough)) if self.relative else enough


def region_weights(mask: BoolArray) -> tuple[Float64Array, int]:
    """The share of its region that each defective pixel stands for.

    Args:
        mask: (H, W) bool, True = defect.

    Returns:
        For each True pixel, row by row: 1 / number of pixels of its 8-connected region. And the number of regions.
    """
    count, labels = _connected_regions(mask)
    inside = labels[mask]
    return 1 / np.bincount(inside)[inside], count


def saturated_weights(heat: npt.NDArray[Any], defects: Sequence[SaturatedRegion]) -> tuple[Float64Array, BoolArray]:
    """What each pixel adds to the saturated overlaps of the defects it lies in.

    Args:
        heat: (H, W) map, higher = worse.
        defects: The defects of this image.

    Returns:
        (H, W) weights, which sum to 1 over each defect; (H, W) bool, True = in any defect.

    Raises:
        BenchmarkError: A mask does not have the map's shape, or a saturation makes no sense.
    """
    weights, mask = np.zeros(heat.shape), np.zeros(heat.shape, bool)
    for defect in defects:
        require_same_shape(heat, defect.mask)
        pixels = np.flatnonzero(defect.mask)
        # Only the highest pixels count: as many as saturate the region.
        pixels = pixels[np.argsort(heat.ravel()[pixels])[::-1]]
        weights.ravel()[pixels] += np.clip(defect.enough - np.arange(len(pixels)), 0, 1) / defect.enough
        mask |= defect.mask
    return weights, mask


def area_up_to(rates: npt.NDArray[Any], overlaps: npt.NDArray[Any], limit: float) -> Float64Array:
    """Area under curves that start at (0, 0), up to a rate, by trapezoids, divided by that rate.

    Args:
        rates: (..., n) false positive rates, not falling along n, 1 at the end.
        overlaps: (..., n) overlaps at those rates.
        limit: Rate at which the curves are cut off, above 0 and up to 1.

    Returns:
        (...) areas; NaN where rates or overlaps are.

    Raises:
        BenchmarkError: The limit is out of range.
    """
    if not 0 < limit <= 1:
        raise BenchmarkError(f"expected a limit of false positives above 0 and up to 1, got {limit}.")
    width = np.diff(rates, axis=-1, prepend=0)
    rise = np.diff(overlaps, axis=-1, prepend=0)
    # The step that crosses the limit is cut off there, along its straight line.
    inside = np.clip(limit - (rates - width), 0, width)
    fraction = np.divide(inside, width, out=np.zeros_like(inside), where=width > 0)
    return (inside * (overlaps - rise + rise * fraction / 2)).sum(axis=-1) / limit


class _WeightedScores(NamedTuple):
    """One image's pixels for the overlap curve.

    Attributes:
        good: (n,) scores of the good pixels.
        defective: (m,) scores of the defective pixels.
        weights: (m,) what each defective pixel adds to the summed overlaps.
        regions: Number of defect regions.
    """

    good: npt.NDArray[Any]
    defective: npt.NDArray[Any]
    weights: Float64Array
    regions: int


def _area_under_overlap(images: Sequence[_WeightedScores], limit: float) -> float:
    if not images:
        return float("nan")
    good = np.concatenate([image.good for image in images])
    defective = np.concatenate([image.defective for image in images])
    weights = np.concatenate([image.weights for image in images])
    regions = sum(image.regions for image in images)
    distinct, index = np.unique(np.concatenate([good, defective]), return_inverse=True)
    if not len(distinct):
        return float("nan")
    false_positives = np.cumsum(np.bincount(index[: len(good)], minlength=len(distinct))[::-1])
    overlaps = np.cumsum(np.bincount(index[len(good) :], weights, minlength=len(distinct))[::-1])
    return float(area_up_to(ratio(false_positives, len(good)), ratio(overlaps, regions), limit))


def _connected_regions(mask: BoolArray) -> tuple[int, npt.NDArray[np.int32]]:
    """Number of 8-connected regions of a mask; (H, W) labels from 1, 0 = background."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return count - 1, labels
