"""Figures of merit of anomaly maps, one image at a time, in memory that does not grow with their number.

Scores are counted in bins. The bit pattern of a float32, its sign taken care of, is an integer that orders as the
floats do, so the range of the scores need not be known: the upper 16 bits name one of 65,536 pages (128 for each
doubling), and a page is cut into 1 to 65,536 bins, as many as its share calls for. Good pixels count by their share of
those at or above them, so that false positive rates are resolved equally well, in proportion, however small they are.

Resolution: a page has at least 2^14 bins times its share, up to 65,536, one for each float32 there is. A thousandth of
the pixels so has a relative resolution of 2^-11 at least, and none is coarser than 2^-7. When a share grows, the page
is cut anew; what was counted before then stands at the mean of its former bin. The tests hold all figures to within
10^-4 of the exact ones, saturated, constant, tiny and heavy-tailed scores included. Maps are rounded to float32.

Memory, whatever the number of maps: 32 bytes a bin, 1 to 2 million bins as a rule and 3.5 million at most for 10^10
pixels; with what is needed for a moment 200 MB at 1024 x 1024. Larger maps need 10 bytes more for each pixel and 40 for
each defective one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import BoolArray, Float64Array, IndexArray
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.metrics.ranking import Interval, Levels, percentile_interval
from fewshot_ad.metrics.region_overlap import SaturatedRegion, area_up_to, region_weights, saturated_weights

_PAGES = 1 << 16
# Bins for a page with all the good pixels at or above it, and with all defective pixels or all regions. Good pixels
# count beside those above them, not beside all, because what is rare among them decides where defects begin.
_GOOD_BINS, _DEFECT_BINS = 1 << 16, 1 << 16
# A page is cut anew when it ought to have so many times its bins.
_SLACK = 4
_BLOCK = 1 << 20
_GOOD, _DEFECT, _OVERLAP, _SUM = range(4)


@dataclass(frozen=True)
class PixelFigures:
    """Figures of merit of anomaly maps, over all pixels of all images; in 0..1, NaN where undefined.

    Attributes:
        auroc: Area under the ROC curve.
        aupr: Average precision.
        f1_max: The highest F1 of any threshold: an upper bound, found on these very masks.
        iou_max: The highest intersection over union, which the same threshold gives.
        threshold: That threshold: pixels from it up are said to be defective.
        au_pro: Area under the per-region overlap curve up to a false positive rate of 0.3.
        au_pro_05: The same up to 0.05.
        n_images: Images seen.
        n_regions: Connected defect regions in them.
        n_good: Good pixels.
        n_defective: Defective pixels.
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
    """Takes maps and masks one image at a time; gives the figures at any time."""

    def __init__(self) -> None:
        self._images = self._regions = 0
        # By page: counts of good and of defective pixels, sums of region weights.
        self._pages = np.zeros((3, _PAGES))
        self._bits = np.zeros(_PAGES, np.uint32)
        self._first = np.arange(_PAGES)
        # The same by bin, and the sum of the scores' lower 16 bits.
        self._bins = np.zeros((4, _PAGES))

    def add(self, anomaly_map: npt.NDArray[Any], mask: npt.NDArray[Any]) -> None:
        """Count an image.

        Args:
            anomaly_map: (H, W) finite floats, higher = worse. Maps may differ in size.
            mask: (H, W), True or non-zero = defect; all False of a good image.

        Raises:
            BenchmarkError: They do not fit each other, or the map has values that are not finite.
        """
        heat, truth = np.asarray(anomaly_map), np.asarray(mask).astype(bool)
        if heat.ndim != 2 or heat.shape != truth.shape:
            raise BenchmarkError(f"expected an (H, W) map and a mask of its size, got {heat.shape} and {truth.shape}.")
        self._count(heat, truth, *(region_weights(truth) if truth.any() else (np.empty(0), 0)))

    def add_saturated(self, anomaly_map: npt.NDArray[Any], defects: Sequence[SaturatedRegion]) -> None:
        """Count an image of whose defects a part is enough; `au_pro` and `au_pro_05` become saturated ones.

        Args:
            anomaly_map: As of `add`.
            defects: They may overlap; none of a good image. For all images or for none: a connected region
                and a defect are not of one kind.

        Raises:
            BenchmarkError: As of `add`.

        Source: Bergmann et al. 2022 (MVTec LOCO AD), section 4.
        """
        heat = np.asarray(anomaly_map)
        if heat.ndim != 2:
            raise BenchmarkError(f"expected an (H, W) map, got {heat.shape}.")
        weights, truth = saturated_weights(heat, defects)
        self._count(heat, truth, weights[truth], len(defects))

    def _count(self, heat: npt.NDArray[Any], truth: BoolArray, weights: Float64Array, regions: int) -> None:
        # In blocks, so that what is needed for a moment stays small for large maps, too.
        flat = heat.reshape(-1)
        blocks = [slice(start, start + _BLOCK) for start in range(0, flat.size, _BLOCK)]
        keys = np.concatenate([_keys(flat[block]) for block in blocks]) if blocks else np.empty(0, np.uint32)
        inside = keys[truth.reshape(-1)]
        self._images += 1
        self._regions += regions
        for block in blocks:
            np.add.at(self._pages[_GOOD], keys[block] >> 16, 1.0)
        _move_defects(self._pages, inside >> 16, weights)
        self._refine()
        for block in blocks:
            place = self._bin(keys[block])
            np.add.at(self._bins[_GOOD], place, 1.0)
            np.add.at(self._bins[_SUM], place, (keys[block] & 0xFFFF).astype(np.float64))
        _move_defects(self._bins, self._bin(inside), weights)

    def _bin(self, keys: npt.NDArray[np.uint32]) -> IndexArray:
        pages = keys >> 16
        return self._first[pages] + ((keys & 0xFFFF) >> (16 - self._bits[pages]))

    def _refine(self) -> None:
        """Cut the pages by their shares, if one of them has outgrown its bins."""
        good, defect, overlap = self._pages
        above = np.cumsum(good[::-1])[::-1]
        wanted = _GOOD_BINS * good / np.maximum(above, 1)
        wanted += _DEFECT_BINS * (defect / max(defect.sum(), 1) + overlap / max(self._regions, 1))
        if not ((wanted > _SLACK * np.exp2(self._bits)) & (self._bits < 16)).any():
            return
        occupied = np.flatnonzero(self._bins[:2].any(axis=0))
        counts = self._bins[:, occupied]
        # The mean of a bin stands for what was counted in it, so that scores which are all alike stay exact.
        lower = np.round(counts[_SUM] / (counts[_GOOD] + counts[_DEFECT])).astype(np.int64)
        keys = ((self._page(occupied) << 16) + lower).astype(np.uint32)
        bits = np.ceil(np.log2(np.maximum(wanted, 1)))
        self._bits = np.minimum(bits, 16).astype(np.uint32)
        self._first = np.concatenate([[0], np.cumsum(1 << self._bits.astype(np.int64))])
        n_bins = int(self._first[-1])
        self._first = self._first[:-1]
        place = self._bin(keys)
        self._bins = np.stack([np.bincount(place, kind, n_bins).astype(np.float64) for kind in counts])

    def _page(self, bins: IndexArray) -> IndexArray:
        return np.searchsorted(self._first, bins, side="right") - 1

    def _lowest_key(self, bins: IndexArray) -> npt.NDArray[np.uint32]:
        pages = self._page(bins)
        within = (bins - self._first[pages]) << (16 - self._bits[pages].astype(np.int64))
        return ((pages << 16) + within).astype(np.uint32)

    def result(self) -> PixelFigures:
        """The figures of what was added so far."""
        occupied = np.flatnonzero(self._bins[:2].any(axis=0))[::-1]
        good, defect, overlap, _ = self._bins[:, occupied]
        n_good, n_defective = int(good.sum()), int(defect.sum())
        nan = float("nan")
        best, threshold, auroc, aupr, au_pro, au_pro_05 = nan, nan, nan, nan, nan, nan
        if n_defective:
            levels = Levels(defect, good)
            auroc, aupr = float(levels.auroc()), float(levels.aupr())
            f1 = levels.f1()
            place = int(np.argmax(f1))
            best, threshold = float(f1[place]), _value(self._lowest_key(occupied[place : place + 1]))
        if n_defective and n_good:
            rates, overlaps = np.cumsum(good) / n_good, np.cumsum(overlap) / self._regions
            au_pro, au_pro_05 = (float(area_up_to(rates, overlaps, limit)) for limit in (0.3, 0.05))
        return PixelFigures(
            auroc=auroc,
            aupr=aupr,
            f1_max=best,
            iou_max=best / (2 - best),
            threshold=threshold,
            au_pro=au_pro,
            au_pro_05=au_pro_05,
            n_images=self._images,
            n_regions=self._regions,
            n_good=n_good,
            n_defective=n_defective,
        )


def _move_defects(counts: Float64Array, place: npt.NDArray[Any], weights: Float64Array) -> None:
    """Move defective pixels, counted as good so far, to where they belong."""
    np.add.at(counts[_GOOD], place, -1.0)
    np.add.at(counts[_DEFECT], place, 1.0)
    np.add.at(counts[_OVERLAP], place, weights)


def _keys(heat: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """(n,) floats -> (n,) integers that order as they do."""
    with np.errstate(over="ignore"):
        # Adding zero makes -0.0 into 0.0, its equal with another pattern.
        values = heat.astype(np.float32) + np.float32(0)
    if not np.isfinite(values).all():
        raise BenchmarkError(
            f"expected a map of finite float32 values, got {int((~np.isfinite(values)).sum())} that are not. "
            "Correct what draws the map: a figure over the rest would flatter it."
        )
    bits = values.view(np.int32)
    # Negative floats order backwards: all their bits are turned over; of the others only the sign is.
    return (bits ^ ((bits >> 31) | np.int32(-(2**31)))).view(np.uint32)


def _value(key: npt.NDArray[np.uint32]) -> float:
    bits = np.where(key >> 31, key ^ np.uint32(1 << 31), ~key).astype(np.uint32)
    return float(bits.view(np.float32)[0])


def bootstrap_au_pro(
    maps: Sequence[npt.NDArray[Any]],
    masks: Sequence[BoolArray],
    limit: float = 0.3,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of AU-PRO, from drawing images anew, those with and without defects apart.

    Each image is reduced to its false positives and overlaps at 2,176 thresholds, so a draw is a product of
    matrices; the thresholds are quantiles of all good pixels, densest up to three times the limit.

    Args:
        maps: (H, W) float maps, higher = worse; all in memory.
        masks: (H, W) bool, True = defect.
        limit: False positive rate up to which the area is taken.
        repeats: Number of draws.
        level: Share of the draws that lie inside.
        seed: Of the draws.

    Returns:
        (low, high); NaN if there is no defect region or no good pixel.

    Source: Efron & Tibshirani 1993, chapter 13; the image is the unit, as pixels of one are not independent.
    """
    pooled = np.sort(np.concatenate([heat[~mask] for heat, mask in zip(maps, masks, strict=True)]))
    defective = np.array([mask.any() for mask in masks])
    if not len(pooled) or not defective.any():
        return float("nan"), float("nan")
    dense = min(1.0, 3 * limit)
    rates = np.concatenate([np.linspace(0, dense, 1024), np.linspace(dense, 1, 64)])
    thresholds = np.unique(pooled[np.round((1 - rates) * (len(pooled) - 1)).astype(np.int64)])
    thresholds = thresholds.astype(np.result_type(thresholds, np.float32))
    # From just above a good pixel and from it up: overlap that rises between two good pixels costs no false positives.
    thresholds = np.unique(np.concatenate([thresholds, np.nextafter(thresholds, np.inf)]))[::-1]
    rows = [_at_thresholds(heat, mask, thresholds) for heat, mask in zip(maps, masks, strict=True)]
    false, overlap = np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])
    n_regions = np.array([row[2] for row in rows])
    rng = np.random.default_rng(seed)
    times = np.zeros((repeats, len(maps)))
    for kind in (np.flatnonzero(defective), np.flatnonzero(~defective)):
        if len(kind):
            times[:, kind] = rng.multinomial(len(kind), np.full(len(kind), 1 / len(kind)), repeats)
    rates, overlaps = times @ false, times @ overlap
    areas = area_up_to(rates / rates[:, -1:], overlaps / (times @ n_regions)[:, None], limit)
    return percentile_interval(areas, level)


def _at_thresholds(
    heat: npt.NDArray[Any], mask: BoolArray, thresholds: npt.NDArray[Any]
) -> tuple[Float64Array, Float64Array, int]:
    """(t,) good pixels from each threshold up, (t,) summed overlaps of the regions, number of regions."""
    good = np.sort(heat[~mask])
    weights, regions = region_weights(mask)
    inside = heat[mask]
    order = np.argsort(inside)
    below = np.concatenate([[0], np.cumsum(weights[order])])[np.searchsorted(inside[order], thresholds)]
    return (len(good) - np.searchsorted(good, thresholds)).astype(np.float64), regions - below, regions
