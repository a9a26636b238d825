"""Support set -> memory banks and calibration: everything that happens once a product."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewshot_ad.arrays import IndexArray, Progress
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.calibration import Calibration, Method, calibrate
from fewshot_ad.enrollment.embedding import Embedded, Pool, StandIn, join_pools
from fewshot_ad.enrollment.support import View
from fewshot_ad.errors import SupportSetError
from fewshot_ad.scoring import Measurement, ScoringConfig, anomaly_map, measure
from fewshot_ad.search.memory_bank import MemoryBank, Origin, greedy_coreset, jl_projection, nearest_of_others

REPLACEMENT_DIMS = 64


@dataclass(frozen=True)
class Enrollment:
    """The record of how a product was enrolled; all of it is stored in the artifact.

    Attributes:
        product: Name of the product.
        image_size: Working scale in pixels, see `images.Geometry`.
        views: Views of each support image besides itself.
        budget: Bank vectors a level, at most.
        seed: Of everything random.
        support: Name and pixel hash of each support image.
        notes: What was noticed about the support set.
        reasons: Why `auto` chose the views and the size it did.
        created: ISO date and time, UTC.
        versions: Versions of the libraries that computed it.
    """

    product: str
    image_size: int
    views: tuple[View, ...]
    budget: int
    seed: int
    support: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    reasons: tuple[str, ...]
    created: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Enrolled:
    """Memory banks and what was learned about their scores.

    Attributes:
        banks: One a level.
        level_scale: One divisor a level.
        calibration: The thresholds.
        picked: Which patches of the pools are in the banks, a level.
    """

    banks: tuple[MemoryBank, ...]
    level_scale: tuple[float, ...]
    calibration: Calibration
    picked: tuple[IndexArray, ...] = ()


def extend(
    enrolled: Enrolled,
    embedded: Embedded,
    scoring: ScoringConfig,
    image_size: int,
    budget: int,
    seed: int,
    known: int,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Enrolled:
    """Take further good images into a product without its first ones.

    The bank is thinned together with the new patches, as if it were the pool of the first images, which it covers.
    Each new image is scored against the bank before it and joins the held-out scores; those of the first ones
    stay, which is on the safe side for good parts: with more images they could only have become smaller.

    Args:
        enrolled: The product as it is.
        embedded: The new images.
        scoring: How distances become a score and a map.
        image_size: Working scale.
        budget: Bank vectors a level.
        seed: Of the coreset's projection.
        known: Number of images it has been enrolled from.
        threads: Number of CPU threads of the banks' search.
        progress: Called as `progress(stage, done, total)`.

    Raises:
        SupportSetError: The product was enrolled from a single image, whose views are no measure for further ones.
    """
    calibration = enrolled.calibration
    if calibration.method != "leave-one-image-out" or len(calibration.map_peaks) != len(calibration.scores):
        raise SupportSetError(
            "expected a product enrolled from at least two images by this version, got one whose held-out scores "
            "say nothing about a further image. Enroll again from all images together."
        )
    folds = [measure(s.levels, enrolled.banks, enrolled.level_scale, s.geometry, scoring) for s in embedded.stand_ins]
    peaks = _peaks(folds, embedded.stand_ins, scoring, image_size)
    banks = []
    for bank, pool in zip(enrolled.banks, embedded.pools, strict=True):
        new = Origin(pool.origin.image + np.int32(known), pool.origin.view, pool.origin.xy)
        joined = join_pools([Pool(bank.vectors, bank.origin), Pool(pool.vectors, new)])
        picked = greedy_coreset(joined.vectors, budget, seed, progress, threads)
        banks.append(MemoryBank(joined.vectors[picked], joined.origin[picked], scoring.metric, threads))
    scores = [*calibration.scores, *(m.score for m in folds)]
    median = calibration.map_scale.median_good
    extended = calibrate(scores, [*calibration.map_peaks, *peaks], median, calibration.method, len(scores))
    return Enrolled(tuple(banks), enrolled.level_scale, extended)


def _peaks(
    folds: Sequence[Measurement], stand_ins: Sequence[StandIn], scoring: ScoringConfig, image_size: int
) -> list[float]:
    return [
        float(anomaly_map(m.grids, stand_in.geometry, scoring.sigma, image_size).max())
        for m, stand_in in zip(folds, stand_ins, strict=True)
    ]


def build(
    embedded: Embedded,
    scoring: ScoringConfig,
    image_size: int,
    budget: int,
    seed: int,
    threads: int | None = None,
    progress: Progress | None = None,
    picked: Sequence[IndexArray] | None = None,
) -> Enrolled:
    """Thin the pools to memory banks and calibrate them on held-out images.

    Args:
        embedded: The embedded support set.
        scoring: How distances become a score and a map.
        image_size: Working scale.
        budget: Bank vectors a level.
        seed: Of the coreset's projection.
        threads: Number of CPU threads of the banks' search.
        progress: Called as `progress(stage, done, total)`.
        picked: Which patches to take, a level, instead of a coreset's.
    """
    if picked is None:
        picked = [greedy_coreset(pool.vectors, budget, seed, progress, threads) for pool in embedded.pools]
    banks = tuple(
        MemoryBank(pool.vectors[index], pool.origin[index], scoring.metric, threads)
        for pool, index in zip(embedded.pools, picked, strict=True)
    )
    ones = (1.0,) * len(banks)
    folds = hold_out(embedded, picked, scoring, ones, threads, progress)
    level_scale = ones
    if len(banks) > 1:
        # Levels differ in the size of their distances; a median good patch becomes 1 on each.
        level_scale = tuple(
            max(1e-12, float(np.median(np.concatenate([m.grids[at].ravel() for m in folds]))))
            for at in range(len(banks))
        )
        folds = hold_out(embedded, picked, scoring, level_scale, threads, progress)
    peaks = _peaks(folds, embedded.stand_ins, scoring, image_size)
    median = float(np.median(np.concatenate([grid.ravel() for m in folds for grid in m.grids])))
    method: Method = "leave-one-image-out" if embedded.n > 1 else "leave-one-view-out"
    # Views of one image are no further images.
    n = len(folds) if embedded.n > 1 else 1
    calibration = calibrate([m.score for m in folds], peaks, median, method, n)
    return Enrolled(banks, level_scale, calibration, tuple(picked))


def hold_out(
    embedded: Embedded,
    picked: Sequence[IndexArray],
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
        picked: The coreset's indices, a level.
        scoring: How distances become a score.
        level_scale: One divisor a level.
        threads: Number of CPU threads of the search.
        progress: Called as `progress("hold-out", done, total)`.

    Returns:
        One measurement a stand-in.

    Raises:
        SupportSetError: There is nothing to hold out against.
    """
    if len(embedded.stand_ins) < 2:
        raise SupportSetError(
            "expected at least two pictures to calibrate on, got one image without views. Give a second good "
            "image, or leave views='auto'."
        )
    several = embedded.n > 1
    groups = [pool.origin.image if several else pool.origin.view for pool in embedded.pools]
    # A stand-in for the exact nearest will do, so the search may see distances through a projection.
    replacements = [
        nearest_of_others(jl_projection(pool.vectors, 0, REPLACEMENT_DIMS), index, group)
        for pool, index, group in zip(embedded.pools, picked, groups, strict=True)
    ]
    measurements = []
    for done, stand_in in enumerate(embedded.stand_ins, 1):
        held_out = stand_in.image if several else stand_in.view
        banks = []
        for pool, index, group, replacement in zip(embedded.pools, picked, groups, replacements, strict=True):
            fold = np.unique(np.where(group[index] == held_out, replacement, index))
            banks.append(MemoryBank(pool.vectors[fold], pool.origin[fold], scoring.metric, threads, lasting=False))
        measurements.append(measure(stand_in.levels, banks, level_scale, stand_in.geometry, scoring))
        if progress is not None:
            progress("hold-out", done, len(embedded.stand_ins))
    return measurements


def odd_ones_out(scores: Sequence[float], names: Sequence[str], first: int = 0) -> tuple[str, ...]:
    """Notes on support images that look unlike the others, by name.

    A held-out score more than half above the median of the others stands out: good parts of one support set are
    typically within a quarter of each other.

    Args:
        scores: Held-out scores, one an image.
        names: The names of those from `first` on.
        first: From where on they are looked at; the ones before are known already.
    """
    if len(scores) != first + len(names) or len(scores) < 3:
        return ()
    notes = []
    for i, (score, name) in enumerate(zip(scores[first:], names, strict=True), first):
        median = float(np.median([s for j, s in enumerate(scores) if j != i]))
        if score > 1.5 * median:
            notes.append(
                f"unlike the others: {name} (held-out score {score:.4g}, the others' median {median:.4g}). Look at "
                "it: if it is not a good part, or not this product, leave it out and enroll again."
            )
    return tuple(notes)


def library_versions(encoder: Encoder) -> dict[str, str]:
    """Versions of what computes the scores, by package."""
    runtime = {"openvino": "openvino", "onnxruntime": "onnxruntime", "torch": "torch"}[encoder.engine_name]
    packages = ["fewshot-ad", "numpy", "opencv-python-headless", "faiss-cpu", runtime]
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return versions
