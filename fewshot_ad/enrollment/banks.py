"""Embedded support set -> memory banks, and the held-out scores that the threshold rests on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fewshot_ad.arrays import IndexArray, Progress, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.embedding import (
    Embedded,
    Pool,
    StandIn,
    embed_image,
    embed_support,
    held_out_alike,
    join_pools,
    scale_image,
)
from fewshot_ad.enrollment.prediction import Evidence, ScoredDefect
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.probes import DrawnDefect, Probes
from fewshot_ad.enrollment.support import SupportImage
from fewshot_ad.errors import SupportSetError
from fewshot_ad.scoring import Measurement, Model, Scale, ScoringConfig, joint_map, joint_score, measure, measure_at
from fewshot_ad.search.memory_bank import MemoryBank, Origin, greedy_coreset, jl_projection, nearest_of_others

REPLACEMENT_DIMS = 64


@dataclass(frozen=True, eq=False)
class EnrolledScale:
    """The support set at one working scale, and what it says of images that it does not hold.

    Attributes:
        image_size: The working scale in pixels.
        coresets: Which patches the banks keep, indices (k,) int64 per level.
        banks: One memory bank per level.
        level_scale: One divisor per level that brings the levels' distances to a common scale.
        good: One measurement per stand-in, each scored against the others.
        nuisances: Scores of the stand-ins after what a line varies, likewise.
        defects: Scores of the drawn defects, likewise.
        embedded: The support set at this scale.
    """

    image_size: int
    coresets: tuple[IndexArray, ...]
    banks: tuple[MemoryBank, ...]
    level_scale: tuple[float, ...]
    good: tuple[Measurement, ...]
    nuisances: tuple[float, ...]
    defects: tuple[float, ...]
    embedded: Embedded

    @property
    def held_out(self) -> tuple[int, ...]:
        """Index of each stand-in's image."""
        return tuple(stand_in.image for stand_in in self.embedded.stand_ins)

    @property
    def typical(self) -> float:
        """Median held-out score."""
        return max(1e-12, float(np.median([m.score for m in self.good])))


def enroll_scale(
    embedded: Embedded,
    settings: EnrollmentSettings,
    image_size: int,
    encoder: Encoder,
    probes: Probes,
    coresets: Sequence[IndexArray] | None = None,
    progress: Progress | None = None,
) -> EnrolledScale:
    """Fill the memory banks of one working scale, and score what they do not hold.

    Args:
        embedded: The support set, embedded at that scale.
        settings: Budget, and how distances become a score.
        image_size: The working scale in pixels.
        encoder: The encoder.
        probes: What is drawn on the images.
        coresets: Which patches the banks keep; None picks them.
        progress: Called as `progress(stage, done, total)`.
    """
    scoring, threads = settings.scoring, encoder.threads
    if coresets is None:
        coresets = pick_coresets(embedded.pools, settings, threads, progress)
    banks = tuple(
        MemoryBank(pool.vectors[index], pool.origin[index], scoring.metric, threads)
        for pool, index in zip(embedded.pools, coresets, strict=True)
    )
    level_scale = (1.0,) * len(banks)
    if len(banks) > 1:
        # Levels differ in the size of their distances; a median good patch becomes 1 on each.
        good = [
            measure(s.levels, fold, level_scale, s.geometry, scoring)
            for s, fold in folds(embedded, coresets, scoring, threads)
        ]
        level_scale = tuple(
            max(1e-12, float(np.median(np.concatenate([m.distances(at) for m in good])))) for at in range(len(banks))
        )
    good, nuisances, defects = [], [], dict[int, float]()
    for done, (stand_in, fold) in enumerate(folds(embedded, coresets, scoring, threads), 1):
        good.append(measure(stand_in.levels, fold, level_scale, stand_in.geometry, scoring))

        def score(image: Uint8Array, fold: Sequence[MemoryBank] = fold) -> float:
            scaled = scale_image(image, image_size, encoder, settings.framing)
            levels = embed_image(scaled, encoder).levels
            return measure(levels, fold, level_scale, scaled.geometry, scoring).score

        if stand_in.view == 0:
            nuisances += [score(image) for image in probes.nuisances(stand_in.image)]
            defects |= {at: score(image) for at, image in probes.defects(stand_in.image)}
        if progress is not None:
            progress("hold-out", done, len(embedded.stand_ins))
    return EnrolledScale(
        image_size,
        tuple(coresets),
        banks,
        level_scale,
        tuple(good),
        tuple(nuisances),
        tuple(defects[at] for at in sorted(defects)),
        embedded,
    )


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


def join_scales(
    scales: Sequence[EnrolledScale], settings: EnrollmentSettings, series: Sequence[DrawnDefect], distinct: int
) -> tuple[tuple[float, ...], Evidence]:
    """Bring working scales to a common scale, and their held-out scores together.

    The scores of two working scales differ in size; a typical good image becomes 1 on each. The distances of a single
    one stay as they are.

    Args:
        scales: The working scales, ascending.
        settings: How a map is made.
        series: The drawn defects.
        distinct: Number of images that differ by more than noise.

    Returns:
        One divisor per working scale, and what the threshold rests on.
    """
    divisors = common_divisors(scales)
    joined = [
        [m.divided(divisor) for m, divisor in zip(measured, divisors, strict=True)]
        for measured in zip(*(scale.good for scale in scales), strict=True)
    ]
    return divisors, Evidence(
        scores=tuple(joint_score(measured) for measured in joined),
        map_peaks=tuple(_peaks(joined, [scale.image_size for scale in scales], settings)),
        median_good=float(
            np.median(
                np.concatenate([one.distances(at) for m in joined for one in m for at in range(len(one.score_maps))])
            )
        ),
        nuisances=_joined([scale.nuisances for scale in scales], divisors),
        defects=tuple(
            ScoredDefect(**dataclasses.asdict(defect), score=score)
            for defect, score in zip(series, _joined([scale.defects for scale in scales], divisors), strict=True)
        ),
        distinct=min(distinct, len(set(scales[0].held_out))),
        views_only=len(set(scales[0].held_out)) < 2,
    )


def common_divisors(scales: Sequence[EnrolledScale]) -> tuple[float, ...]:
    """One divisor per working scale, which brings a typical good image to 1; a single scale stays as it is."""
    return tuple(scale.typical for scale in scales) if len(scales) > 1 else (1.0,)


def _joined(scores: Sequence[Sequence[float]], divisors: Sequence[float]) -> tuple[float, ...]:
    """Scores per working scale -> the joint score of each image."""
    return tuple(max(s / d for s, d in zip(each, divisors, strict=True)) for each in zip(*scores, strict=True))


def _peaks(
    measured: Sequence[Sequence[Measurement]], image_sizes: Sequence[int], settings: EnrollmentSettings
) -> list[float]:
    return [float(joint_map(one, image_sizes, settings.scoring.sigma).max()) for one in measured]


def extend_banks(
    model: Model,
    new: Sequence[SupportImage],
    settings: EnrollmentSettings,
    encoder: Encoder,
    known: int,
    progress: Progress | None = None,
) -> Extension:
    """Take further good images into a product without its first ones.

    Each bank is thinned together with the new patches, as if it were the pool of the first images, which it covers.
    Each new image is scored against the bank before it.

    Args:
        model: The product's banks as they are.
        new: The new images.
        settings: The product's.
        encoder: Its encoder.
        known: Number of images it has been enrolled from.
        progress: Called as `progress("coreset", done, total)`.
    """
    scoring, threads = settings.scoring, encoder.threads
    # Of many images fewer are scored at the finer scale, and a score takes all of them.
    seen = held_out_alike(
        [embed_support(new, settings, scale.image_size, encoder, progress, alone=False) for scale in model.scales]
    )
    scales, measured = [], []
    for scale, embedded in zip(model.scales, seen, strict=True):
        measured.append([measure_at(scale, s.levels, s.geometry, scoring) for s in embedded.stand_ins])
        banks = []
        for bank, pool in zip(scale.banks, embedded.pools, strict=True):
            late = Origin(pool.origin.image + np.int32(known), pool.origin.view, pool.origin.xy)
            joined = join_pools([Pool(bank.vectors, bank.origin), Pool(pool.vectors, late)])
            index = greedy_coreset(joined.vectors, settings.budget, settings.seed, progress, threads)
            # Where encoder and bank are one graph, the bank by itself is hardly searched.
            alone = scale.one_pass is None
            vectors, origin = joined.vectors[index], joined.origin[index]
            banks.append(MemoryBank(vectors, origin, scoring.metric, threads, lasting=alone))
        scales.append(dataclasses.replace(scale, banks=tuple(banks), one_pass=None))
    held_out = [list(one) for one in zip(*measured, strict=True)]
    return Extension(
        scales=scales,
        scores=[joint_score(one) for one in held_out],
        map_peaks=_peaks(held_out, model.image_sizes, settings),
        closeness=[one[0].closeness for one in held_out],
        embedded=seen[-1],
    )


class Extension(NamedTuple):
    """A product's banks with further images.

    Attributes:
        scales: As `Product.assemble` takes them.
        scores: Scores of the new images against the banks before them.
        map_peaks: The highest value of each one's map.
        closeness: Of each at the coarsest scale, see `Measurement.closeness`.
        embedded: The new images at the finest scale.
    """

    scales: Sequence[Scale]
    scores: list[float]
    map_peaks: list[float]
    closeness: list[float]
    embedded: Embedded


def folds(
    embedded: Embedded, coresets: Sequence[IndexArray], scoring: ScoringConfig, threads: int | None = None
) -> Iterator[tuple[StandIn, tuple[MemoryBank, ...]]]:
    """Every stand-in with the memory banks of the other images, all its own views taken out.

    A coreset of the others need not be computed anew for each: of the full coreset, the held-out image's own
    vectors are replaced by the nearest patches of the others, which cover what it covered as well as the others can.

    With a single image, views that show all of it are held out in turn instead.

    Args:
        embedded: The embedded support set.
        coresets: The coreset's indices, (k,) int64 per level.
        scoring: How distances become a score.
        threads: Number of CPU threads of the search.

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
    for stand_in in embedded.stand_ins:
        held_out = stand_in.image if several else stand_in.view
        banks = []
        for pool, index, group, replacement in zip(embedded.pools, coresets, groups, replacements, strict=True):
            fold = np.unique(np.where(group[index] == held_out, replacement, index))
            banks.append(MemoryBank(pool.vectors[fold], pool.origin[fold], scoring.metric, threads, lasting=False))
        yield stand_in, tuple(banks)
