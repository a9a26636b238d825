"""Metrics of anomaly maps over all pixels, one image at a time, in memory that does not grow with their number.

Scores are counted in a histogram of two levels whose range need not be known beforehand. The bit pattern of a float32
is an integer that sorts as the floats do once negative values are complemented. Its upper 16 bits select one of 65,536
pages (128 pages per doubling of the score); each page is divided into 1 to 65,536 bins, in proportion to the share of
pixels in it. The share of good pixels is taken among those in the page or above it, so that false positive rates keep
the same relative resolution however small they are.

Resolution: a page has at least 2^14 bins times its share and at most 65,536, one per float32 value. A page that holds
a thousandth of the pixels therefore resolves scores to a relative 2^-11 at least, and no page is coarser than 2^-7.
When a share grows, the page is divided anew; pixels counted before then stand at the mean of their former bin. The
tests hold all metrics to within 10^-4 of the exact values, for saturated, constant, tiny and heavy-tailed scores as
well. Maps are rounded to float32.

Memory, whatever the number of maps: 32 bytes per bin, for usually 1 to 2 million bins and at most 3.5 million for
10^10 pixels; with temporary arrays 200 MB at 1024 x 1024. Larger maps need 10 more bytes per pixel and 40 per
defective pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import BoolArray, Float64Array, IndexArray
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.metrics.ranking import Interval, OperatingPoints, percentile_interval
from fewshot_ad.metrics.region_overlap import SaturatedRegion, area_up_to, region_weights, saturated_weights

_PAGES = 1 << 16
# Bins of a page that holds all the good pixels at or above it, and of a page that holds all defective pixels or all
# regions. Good pixels are related to those at or above them, not to all, because what is rare among them decides where
# defects begin.
_GOOD_BINS, _DEFECT_BINS = 1 << 16, 1 << 16
# Pages are divided anew when one of them should have this many times its bins.
_REFINE_FACTOR = 4
# Pixels processed at once.
_BLOCK = 1 << 20
# Rows of the histograms: number of good pixels, of defective pixels, sum of the defective pixels' region weights, and
# (of the bins only) sum of the scores' lower 16 bits.
_GOOD, _DEFECT, _OVERLAP, _SUM = range(4)


@dataclass(frozen=True)
class PixelFigures:
    """Metrics of anomaly maps, over all pixels of all images; in 0..1, NaN where undefined.

    Attributes:
        auroc: Area under the ROC curve.
        aupr: Average precision.
        f1_max: The highest F1 over all thresholds: an upper bound, since the threshold is fitted to these masks.
        iou_max: The highest intersection over union, which the same threshold reaches.
        threshold: That threshold: pixels at or above it are judged defective.
        au_pro: Area under the per-region overlap curve up to a false positive rate of 0.3.
        au_pro_05: The same up to 0.05.
        n_images: Number of images.
        n_regions: Number of connected defect regions in them.
        n_good: Number of good pixels.
        n_defective: Number of defective pixels.
    """

    auroc: float
    aupr: float
    f1_max: float
    iou_max: float
    threshold: float
    au_pro: float
    au_pro_05: float
    n_images: int
    n_regions: int
    n_good: int
    n_defective: int


class PixelMetrics:
    """Takes maps and masks one image at a time; gives the metrics of all images so far at any time."""

    def __init__(self) -> None:
        self._images = self._regions = 0
        # Per page: number of good and of defective pixels, sum of region weights.
        self._pages = np.zeros((3, _PAGES))
        # Per page: it has 2 ** bits bins, the first of which is `first`.
        self._bits = np.zeros(_PAGES, np.uint32)
        self._first = np.arange(_PAGES)
        # Per bin: the same as per page, and the sum of the scores' lower 16 bits.
        self._bins = np.zeros((4, _PAGES))

    def add(self, anomaly_map: npt.NDArray[Any], mask: npt.NDArray[Any]) -> None:
        """Count one image.

        Args:
            anomaly_map: (H, W) finite floats, higher = worse. Maps may differ in size.
            mask: (H, W), True or non-zero = defect; all False for a good image.

        Raises:
            BenchmarkError: Map and mask differ in shape, or the map has values that are not finite. Nothing is counted.
        """
        heat, defective = np.asarray(anomaly_map), np.asarray(mask).astype(bool)
        if heat.ndim != 2 or heat.shape != defective.shape:
            raise BenchmarkError(
                f"expected an (H, W) map and a mask of its size, got {heat.shape} and {defective.shape}."
            )
        self._count(heat, defective, *(region_weights(defective) if defective.any() else (np.empty(0), 0)))

    def add_saturated(self, anomaly_map: npt.NDArray[Any], defects: Sequence[SaturatedRegion]) -> None:
        """Count one image whose defects count as found once enough of each is covered.

        `au_pro` and `au_pro_05` then are the saturated per-region overlap. Use `add` for all images or
        `add_saturated` for all images: the former counts connected regions, the latter defects.

        Args:
            anomaly_map: As for `add`.
            defects: The defects of the image, empty for a good image; they may overlap.

        Raises:
            BenchmarkError: As for `add`.

        Source: Bergmann et al. 2022 (MVTec LOCO AD), section 4.
        """
        heat = np.asarray(anomaly_map)
        if heat.ndim != 2:
            raise BenchmarkError(f"expected an (H, W) map, got {heat.shape}.")
        weights, defective = saturated_weights(heat, defects)
        self._count(heat, defective, weights[defective], len(defects))

    def result(self) -> PixelFigures:
        """The metrics of all images added so far."""
        bins = np.flatnonzero(self._bins[:2].any(axis=0))[::-1]
        good, defect, overlap, _ = self._bins[:, bins]
        n_good, n_defective = int(good.sum()), int(defect.sum())
        nan = float("nan")
        f1_max, threshold, auroc, aupr, au_pro, au_pro_05 = nan, nan, nan, nan, nan, nan
        if n_defective:
            points = OperatingPoints(defect, good)
            auroc, aupr = float(points.auroc()), float(points.aupr())
            f1 = points.f1()
            best = int(np.argmax(f1))
            f1_max, threshold = float(f1[best]), _value(self._lowest_key(bins[best : best + 1]))
        if n_defective and n_good:
            rates, overlaps = np.cumsum(good) / n_good, np.cumsum(overlap) / self._regions
            au_pro, au_pro_05 = (float(area_up_to(rates, overlaps, limit)) for limit in (0.3, 0.05))
        return PixelFigures(
            auroc=auroc,
            aupr=aupr,
            f1_max=f1_max,
            iou_max=f1_max / (2 - f1_max),
            threshold=threshold,
            au_pro=au_pro,
            au_pro_05=au_pro_05,
            n_images=self._images,
            n_regions=self._regions,
            n_good=n_good,
            n_defective=n_defective,
        )

    def _count(self, heat: npt.NDArray[Any], defective: BoolArray, weights: Float64Array, regions: int) -> None:
        # In blocks, so that temporary arrays stay small for large maps, too.
        flat = heat.reshape(-1)
        blocks = [slice(start, start + _BLOCK) for start in range(0, flat.size, _BLOCK)]
        keys = np.concatenate([_keys(flat[block]) for block in blocks]) if blocks else np.empty(0, np.uint32)
        defect_keys = keys[defective.reshape(-1)]
        self._images += 1
        self._regions += regions
        for block in blocks:
            np.add.at(self._pages[_GOOD], keys[block] >> 16, 1.0)
        _move_defects(self._pages, defect_keys >> 16, weights)
        self._refine()
        for block in blocks:
            bins = self._bin(keys[block])
            np.add.at(self._bins[_GOOD], bins, 1.0)
            np.add.at(self._bins[_SUM], bins, (keys[block] & 0xFFFF).astype(np.float64))
        _move_defects(self._bins, self._bin(defect_keys), weights)

    def _refine(self) -> None:
        """Divide the pages anew by their shares if one of them has outgrown its bins."""
        good, defect, overlap = self._pages
        good_from_here_up = np.cumsum(good[::-1])[::-1]
        target = _GOOD_BINS * good / np.maximum(good_from_here_up, 1)
        target += _DEFECT_BINS * (defect / max(defect.sum(), 1) + overlap / max(self._regions, 1))
        if not ((target > _REFINE_FACTOR * np.exp2(self._bits)) & (self._bits < 16)).any():
            return
        old_bins = np.flatnonzero(self._bins[:2].any(axis=0))
        counts = self._bins[:, old_bins]
        # All pixels of a bin move to its mean, so that scores which are all equal stay exact.
        lower = np.round(counts[_SUM] / (counts[_GOOD] + counts[_DEFECT])).astype(np.int64)
        keys = ((self._page(old_bins) << 16) + lower).astype(np.uint32)
        bits = np.ceil(np.log2(np.maximum(target, 1)))
        self._bits = np.minimum(bits, 16).astype(np.uint32)
        ends = np.cumsum(1 << self._bits.astype(np.int64))
        self._first = np.concatenate([[0], ends[:-1]])
        new_bins = self._bin(keys)
        self._bins = np.stack([np.bincount(new_bins, row, int(ends[-1])).astype(np.float64) for row in counts])

    def _bin(self, keys: npt.NDArray[np.uint32]) -> IndexArray:
        pages = keys >> 16
        return self._first[pages] + ((keys & 0xFFFF) >> (16 - self._bits[pages]))

    def _page(self, bins: IndexArray) -> IndexArray:
        return np.searchsorted(self._first, bins, side="right") - 1

    def _lowest_key(self, bins: IndexArray) -> npt.NDArray[np.uint32]:
        pages = self._page(bins)
        within_page = (bins - self._first[pages]) << (16 - self._bits[pages].astype(np.int64))
        return ((pages << 16) + within_page).astype(np.uint32)


def bootstrap_au_pro(
    maps: Sequence[npt.NDArray[Any]],
    masks: Sequence[BoolArray],
    limit: float = 0.3,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of AU-PRO: images are drawn with replacement, those with and without defects separately.

    Each image is reduced to its false positives and overlaps at up to 2,176 thresholds, so that a draw is a matrix
    product; the thresholds are quantiles of all good pixels, densest up to three times the limit.

    Args:
        maps: (H, W) float maps, higher = worse; all in memory.
        masks: (H, W) bool, True = defect.
        limit: False positive rate at which the curve is cut off, above 0 and up to 1.
        repeats: Number of draws.
        level: Confidence level: share of the draws that lie inside the interval, between 0 and 1.
        seed: Of the draws.

    Returns:
        (low, high); NaN if there is no defect region or no good pixel.

    Raises:
        BenchmarkError: The limit or the level is out of range.

    Source: Efron & Tibshirani 1993, chapter 13; images are drawn, not pixels, as the pixels of one image depend on
        each other.
    """
    good_scores = np.sort(np.concatenate([heat[~mask] for heat, mask in zip(maps, masks, strict=True)]))
    defective = np.array([mask.any() for mask in masks])
    if not len(good_scores) or not defective.any():
        return float("nan"), float("nan")
    thresholds = _quantile_thresholds(good_scores, limit)
    curves = [_overlap_curve(heat, mask, thresholds) for heat, mask in zip(maps, masks, strict=True)]
    false_positives = np.stack([curve[0] for curve in curves])
    overlaps = np.stack([curve[1] for curve in curves])
    n_regions = np.array([curve[2] for curve in curves])
    rng = np.random.default_rng(seed)
    # How often each draw holds each image.
    times = np.zeros((repeats, len(maps)))
    for members in (np.flatnonzero(defective), np.flatnonzero(~defective)):
        if len(members):
            times[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), repeats)
    false_positives, overlaps = times @ false_positives, times @ overlaps
    rates = false_positives / false_positives[:, -1:]
    return percentile_interval(area_up_to(rates, overlaps / (times @ n_regions)[:, None], limit), level)


def _quantile_thresholds(good_scores: npt.NDArray[Any], limit: float) -> npt.NDArray[Any]:
    """(t,) thresholds, highest first, at quantiles of the (n,) sorted scores of the good pixels."""
    dense_up_to = min(1.0, 3 * limit)
    rates = np.concatenate([np.linspace(0, dense_up_to, 1024), np.linspace(dense_up_to, 1, 64)])
    thresholds = np.unique(good_scores[np.round((1 - rates) * (len(good_scores) - 1)).astype(np.int64)])
    thresholds = thresholds.astype(np.result_type(thresholds, np.float32))
    # Just above each good score, and at it: overlap that rises between two good scores costs no false positive.
    return np.unique(np.concatenate([thresholds, np.nextafter(thresholds, np.inf)]))[::-1]


def _overlap_curve(
    heat: npt.NDArray[Any], mask: BoolArray, thresholds: npt.NDArray[Any]
) -> tuple[Float64Array, Float64Array, int]:
    """(t,) good pixels at or above each threshold, (t,) summed overlaps of the regions, number of regions."""
    good = np.sort(heat[~mask])
    weights, regions = region_weights(mask)
    inside = heat[mask]
    order = np.argsort(inside)
    below = np.concatenate([[0], np.cumsum(weights[order])])[np.searchsorted(inside[order], thresholds)]
    return (len(good) - np.searchsorted(good, thresholds)).astype(np.float64), regions - below, regions


def _move_defects(counts: Float64Array, index: npt.NDArray[Any], weights: Float64Array) -> None:
    """Move defective pixels, counted as good so far, to the row of defective pixels, and add their weights."""
    np.add.at(counts[_GOOD], index, -1.0)
    np.add.at(counts[_DEFECT], index, 1.0)
    np.add.at(counts[_OVERLAP], index, weights)


def _keys(heat: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """(n,) floats -> (n,) integers that sort in the same order.

    Raises:
        BenchmarkError: A value is not finite in float32.
    """
    with np.errstate(over="ignore"):
        # Adding zero makes -0.0 into 0.0, which is equal but has another bit pattern.
        values = heat.astype(np.float32) + np.float32(0)
    if not np.isfinite(values).all():
        raise BenchmarkError(
            f"expected a map of finite float32 values, got {int((~np.isfinite(values)).sum())} that are not. "
            "Correct what computes the map: metrics of the remaining pixels would be too good."
        )
    bits = values.view(np.int32)
    # The bit patterns of negative floats sort backwards: complement all their bits, but only the sign of the others.
    return (bits ^ ((bits >> 31) | np.int32(-(2**31)))).view(np.uint32)


def _value(key: npt.NDArray[np.uint32]) -> float:
    """The float32 of a (1,) key: the inverse of `_keys`."""
    bits = np.where(key >> 31, key ^ np.uint32(1 << 31), ~key).astype(np.uint32)
    return float(bits.view(np.float32)[0])
