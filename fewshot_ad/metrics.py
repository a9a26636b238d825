"""Figures of merit: AUROC of images and pixels, AU-PRO, and what a shipped threshold does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: the probability that a defective one scores above a good one, ties counting half.

    Args:
        labels: (n,) truthy = defective.
        scores: (n,) higher = worse.

    Returns:
        0..1; NaN if one of the two classes is absent.

    Source: Mann & Whitney 1947; Hanley & McNeil 1982.
    """
    positive = np.asarray(labels).astype(bool).ravel()
    values = np.asarray(scores).ravel()
    count = int(positive.sum())
    if count in (0, len(values)):
        return float("nan")
    _, inverse, sizes = np.unique(values, return_inverse=True, return_counts=True)
    # The mean rank (from 1) of each distinct value.
    ranks = np.cumsum(sizes) - (sizes - 1) / 2
    rank_sum = float(ranks[inverse][positive].sum())
    return (rank_sum - count * (count + 1) / 2) / (count * (len(values) - count))


def au_pro(maps: Sequence[npt.NDArray[Any]], masks: Sequence[BoolArray], limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false positive rate, scaled to 0..1.

    At each threshold, the overlap is the share of a connected defect region that is at or above it, averaged over
    all regions of all photographs; the false positive rate is the share of all good pixels that are.

    Args:
        maps: (H, W) float maps, higher = worse; good photographs belong in, too.
        masks: (H, W) bool, True = defect.
        limit: False positive rate up to which the area is taken.

    Returns:
        0..1; NaN if there is no defect region or no good pixel.

    Source: Bergmann et al. 2021 (MVTec AD), section 4.1.
    """
    regions: list[npt.NDArray[Any]] = []
    good: list[npt.NDArray[Any]] = []
    for heat, mask in zip(maps, masks, strict=True):
        if heat.shape != mask.shape:
            raise ValueError(f"expected a mask of the map's shape {heat.shape}, got {mask.shape}.")
        good.append(heat[~mask])
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions.extend(np.sort(heat[labels == label]) for label in range(1, count))
    negatives = np.sort(np.concatenate(good)) if good else np.empty(0)
    if not regions or len(negatives) == 0:
        return float("nan")
    # Each distinct good value up to the limit is a threshold: the curve changes only there as far as the area goes.
    thresholds = np.unique(negatives)[::-1]
    rates = 1 - np.searchsorted(negatives, thresholds, side="left") / len(negatives)
    last = int(np.searchsorted(rates, limit, side="right")) + 1
    thresholds, rates = thresholds[:last], rates[:last]
    overlap = np.mean(
        [1 - np.searchsorted(region, thresholds, side="left") / len(region) for region in regions], axis=0
    )
    above_all = np.mean([np.mean(region > negatives[-1]) for region in regions])
    rates, overlap = np.concatenate([[0.0], rates]), np.concatenate([[above_all], overlap])
    at_limit = float(np.interp(limit, rates, overlap))
    inside = rates <= limit
    x, y = np.append(rates[inside], limit), np.append(overlap[inside], at_limit)
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum() / limit)


@dataclass(frozen=True)
class AtThreshold:
    """What a threshold does on labelled photographs; all in 0..1, NaN where undefined.

    Attributes:
        precision: Share of the rejected that are defective.
        recall: Share of the defective that are rejected.
        f1: Harmonic mean of the two.
        false_reject_rate: Share of the good that are rejected.
        escape_rate: Share of the defective that are passed.
    """

    precision: float
    recall: float
    f1: float
    false_reject_rate: float
    escape_rate: float


def at_threshold(labels: npt.ArrayLike, rejected: npt.ArrayLike) -> AtThreshold:
    """Count decisions against the truth.

    Args:
        labels: (n,) truthy = defective.
        rejected: (n,) truthy = said to be anomalous.
    """
    truth, said = np.asarray(labels).astype(bool), np.asarray(rejected).astype(bool)
    hits, false_rejects, escapes = int((truth & said).sum()), int((~truth & said).sum()), int((truth & ~said).sum())

    def share(part: int, whole: int) -> float:
        return part / whole if whole else float("nan")

    return AtThreshold(
        precision=share(hits, hits + false_rejects),
        recall=share(hits, hits + escapes),
        f1=share(2 * hits, 2 * hits + false_rejects + escapes),
        false_reject_rate=share(false_rejects, int((~truth).sum())),
        escape_rate=share(escapes, hits + escapes),
    )
