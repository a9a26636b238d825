"""Embedded support set -> memory banks, and the held-out scores that the threshold rests on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewshot_ad.arrays import IndexArray, Progress
from fewshot_ad.enrollment.calibration import Calibration, Method, calibrate
from fewshot_ad.enrollment.embedding import Embedded, Pool, StandIn, join_pools
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.errors import SupportSetError
from fewshot_ad.scoring import Measurement, Model, ScoringConfig, anomaly_map, measure
from fewshot_ad.search.memory_bank import MemoryBank, Origin, greedy_coreset, jl_projection, nearest_of_others

REPLACEMENT_DIMS = 64


def pick_coresets(
    pools: Sequence[Pool], settings: EnrollmentSettings, threads: int | None = None, progress: Progress | None = None
) -> tuple[IndexArray, ...]:
    """Which patches of each level's pool its memory bank keeps.

    Args:
        pools: One pool per level.
        settings: Budget, and the seed of the coreset's projection.
        threads: Number of CPU threads of the search.
        progress: Called as `progress("coreset", done, total)`.

    Returns:
        Indices (k,) int64 per level.
    """
    return tuple(greedy_coreset(pool.vectors, settings.budget, settings.seed, progress, threads) for pool in pools)


def build_banks(
    embedded: Embedded,
    coresets: Sequence[IndexArray],
    settings: EnrollmentSettings,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[MemoryBank, ...], tuple[float, ...], Calibration]:
    """Fill the memory banks and calibrate them on held-out images.

    Args:
        embedded: The embedded support set.
        coresets: Which patches of the pools to keep, indices (k,) int64 per level.
        settings: How distances become a score and a map, and the working scale.
        threads: Number of CPU threads of the banks' search.
        progress: Called as `progress("hold-out", done, total)`.

    Returns:
        One memory bank per level; one divisor per level that brings the levels' distances to a common scale; and the
        calibration.
    """
    scoring = settings.scoring
    banks = tuple(
        MemoryBank(pool.vectors[index], pool.origin[index], scoring.metric, threads)
        for pool, index in zip(embedded.pools, coresets, strict=True)
    )
    level_scale = (1.0,) * len(banks)
    folds = hold_out(embedded, coresets, scoring, level_scale, threads, progress)
    if len(banks) > 1:
        # Levels differ in the size of their distances; a median good patch becomes 1 on each.
        level_scale = tuple(
            max(1e-12, float(np.median(np.concatenate([m.score_maps[at].ravel() for m in folds]))))
            for at in range(len(banks))
        )
        folds = hold_out(embedded, coresets, scoring, level_scale, threads, progress)
    peaks = _peaks(folds, embedded.stand_ins, settings)
    median = float(np.median(np.concatenate([score_map.ravel() for m in folds for score_map in m.score_maps])))
    method: Method = "leave-one-image-out" if embedded.n > 1 else "leave-one-view-out"
    # Views of one image are no further images.
    n = len(folds) if embedded.n > 1 else 1
    return banks, level_scale, calibrate([m.score for m in folds], peaks, median, method, n)


def extend_banks(
    model: Model,
    calibration: Calibration,
    embedded: Embedded,
    settings: EnrollmentSettings,
    known: int,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[MemoryBank, ...], Calibration]:
    """Take further good images into a product without its first ones.

    Each bank is thinned together with the new patches, as if it were the pool of the first images, which it covers.
    Each new image is scored against the bank before it and joins the held-out scores; those of the first ones stay,
    which is on the safe side for good parts: with more images they could only have become smaller.

    Args:
        model: The product's banks as they are.
        calibration: Its calibration as it is.
        embedded: The new images.
        settings: The product's.
        known: Number of images it has been enrolled from.
        threads: Number of CPU threads of the banks' search.
        progress: Called as `progress("coreset", done, total)`.

    Returns:
        The memory banks, and the calibration.

    Raises:
        SupportSetError: The product was enrolled from a single image, whose views are no measure for further ones.
    """
    if calibration.method != "leave-one-image-out" or len(calibration.map_peaks) != len(calibration.scores):
        raise SupportSetError(
            "expected a product enrolled from at least two images by this version, got one whose held-out scores say "
            "nothing about a further image. Enroll again from all images together."
        )
    scoring = settings.scoring
    folds = [measure(s.levels, model.banks, model.level_scale, s.geometry, scoring) for s in embedded.stand_ins]
    banks = []
    for bank, pool in zip(model.banks, embedded.pools, strict=True):
        new = Origin(pool.origin.image + np.int32(known), pool.origin.view, pool.origin.xy)
        joined = join_pools([Pool(bank.vectors, bank.origin), Pool(pool.vectors, new)])
        index = greedy_coreset(joined.vectors, settings.budget, settings.seed, progress, threads)
        banks.append(MemoryBank(joined.vectors[index], joined.origin[index], scoring.metric, threads))
    scores = [*calibration.scores, *(m.score for m in folds)]
    peaks = [*calibration.map_peaks, *_peaks(folds, embedded.stand_ins, settings)]
    median = calibration.map_scale.median_good
    return tuple(banks), calibrate(scores, peaks, median, calibration.method, len(scores))


def hold_out(
    embedded: Embedded,
    coresets: Sequence[IndexArray],
    scoring: ScoringConfig,
    level_scale: Sequence[float],
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Score every support image against the others' memory bank, all its own views taken out.

    A coreset of the others need not be computed anew for each: of the full coreset, the held-out image's own
    vectors are replaced by the nearest patches of the others, which cover what it covered as well as the others can.

    With a single image, views that show all of it are held out in turn instead.

    Args:
        embedded: The embedded support set.
        coresets: The coreset's indices, (k,) int64 per level.
        scoring: How distances become a score.
        level_scale: One divisor per level.
        threads: Number of CPU threads of the search.
        progress: Called as `progress("hold-out", done, total)`.

    Returns:
        One measurement per stand-in.

    Raises:
        SupportSetError: There is nothing to hold out against.
    """
    if len(embedded.stand_ins) < 2:
        raise SupportSetError(
            "expected at least two images to calibrate on, got one image without views. Give a second good "
            "image, or leave views='auto'."
        )
    several = embedded.n > 1
    groups = [pool.origin.image if several else pool.origin.view for pool in embedded.pools]
    # A stand-in for the exact nearest will do, so the search may see distances through a projection.
    replacements = [
        nearest_of_others(jl_projection(pool.vectors, 0, REPLACEMENT_DIMS), index, group)
        for pool, index, group in zip(embedded.pools, coresets, groups, strict=True)
    ]
    measurements = []
    for done, stand_in in enumerate(embedded.stand_ins, 1):
        held_out = stand_in.image if several else stand_in.view
        banks = []
        for pool, index, group, replacement in zip(embedded.pools, coresets, groups, replacements, strict=True):
            fold = np.unique(np.where(group[index] == held_out, replacement, index))
            banks.append(MemoryBank(pool.vectors[fold], pool.origin[fold], scoring.metric, threads, lasting=False))
        measurements.append(measure(stand_in.levels, banks, level_scale, stand_in.geometry, scoring))
        if progress is not None:
            progress("hold-out", done, len(embedded.stand_ins))
    return measurements


def _peaks(folds: Sequence[Measurement], stand_ins: Sequence[StandIn], settings: EnrollmentSettings) -> list[float]:
    return [
        float(anomaly_map(m.score_maps, stand_in.geometry, settings.scoring.sigma, settings.image_size).max())
        for m, stand_in in zip(folds, stand_ins, strict=True)
    ]
