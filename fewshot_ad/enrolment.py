"""Support set -> memory banks and calibration: everything that happens once a product."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.calibration import Calibration, Method, calibrate
from fewshot_ad.encoder import Encoder
from fewshot_ad.errors import ImageError, SupportSetError
from fewshot_ad.images import Float32Array, Geometry, Uint8Array, inside_patches
from fewshot_ad.memory_bank import (
    IndexArray,
    MemoryBank,
    Origin,
    Progress,
    greedy_coreset,
    jl_projection,
    nearest_of_others,
    normalise,
)
from fewshot_ad.scoring import Measurement, ScoringConfig, anomaly_map, measure
from fewshot_ad.support import SupportImage, View

# Patches held at once. Beyond, each photograph gives a random share of its views' patches (and of its own only if
# those alone are too many), which bounds the time of the coreset, and the pool to 80 MB at 152 dimensions.
POOL_LIMIT = 131_072
# Patches of the photographs that are held out in turn. Of a larger support set an even choice is held out, which bounds
# the memory to 160 MB at 152 dimensions.
STAND_IN_LIMIT = 262_144
MIN_STAND_INS = 8
# Photographs travel with the product at the working scale, as PNG, for proofs that need no other photograph.
REFERENCE_BYTES = 1_500_000
REPLACEMENT_DIMS = 64


@dataclass(frozen=True)
class Enrolment:
    """The record of how a product was enrolled; all of it is stored in the artefact.

    Attributes:
        product: Name of the product.
        image_size: Working scale in pixels, see `images.Geometry`.
        views: Views of each support photograph besides itself.
        budget: Bank vectors a level, at most.
        seed: Of everything random.
        support: Name and pixel hash of each support photograph.
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


@dataclass(frozen=True, eq=False)
class Pool:
    """Patch embeddings of all views of a support set, a level.

    Attributes:
        vectors: (n, d) float32, `normalise`d and rounded to what the artefact stores.
        origin: Where each comes from.
    """

    vectors: Float32Array
    origin: Origin


@dataclass(frozen=True, eq=False)
class StandIn:
    """A good picture that is held out to stand for the next one of the line.

    Attributes:
        levels: Its embeddings, (h, w, d) float32 a level.
        geometry: Of its photograph.
        image: Index of its photograph.
        view: Index of the view; 0 is the photograph itself.
    """

    levels: tuple[Float32Array, ...]
    geometry: Geometry
    image: int
    view: int


@dataclass(frozen=True)
class Embedded:
    """An embedded support set.

    Attributes:
        pools: One pool a level.
        stand_ins: What is held out in turn: the photographs, or an even choice of many; of a single one, its views.
        n: Number of photographs.
        references: The first photographs, as many as `REFERENCE_BYTES` hold.
    """

    pools: tuple[Pool, ...]
    stand_ins: tuple[StandIn, ...]
    n: int
    references: tuple[Reference, ...]


@dataclass(frozen=True, eq=False)
class Reference:
    """A support photograph as the encoder saw it.

    Attributes:
        png: (n,) uint8: the photograph at the working scale, as a PNG file.
        photo_hw: Height and width of the photograph itself in pixels.
    """

    png: Uint8Array
    photo_hw: tuple[int, int]

    @classmethod
    def make(cls, content: Uint8Array, photo_hw: tuple[int, int]) -> Reference:
        """From the scaled photograph (h, w, 3) uint8 RGB."""
        return cls(cv2.imencode(".png", cv2.cvtColor(content, cv2.COLOR_RGB2BGR))[1].ravel(), photo_hw)

    @property
    def content(self) -> Uint8Array:
        """The photograph at the working scale, (h, w, 3) uint8 RGB."""
        content = cv2.imdecode(self.png, cv2.IMREAD_COLOR_RGB)
        if content is None:
            raise ImageError("a support photograph inside the product cannot be decoded. Enroll again.")
        return content


def kept_references(references: Sequence[Reference]) -> tuple[Reference, ...]:
    """The first of them, as many as `REFERENCE_BYTES` hold."""
    kept: list[Reference] = []
    free = REFERENCE_BYTES
    for reference in references:
        free -= len(reference.png)
        if free < 0:
            break
        kept.append(reference)
    return tuple(kept)


@dataclass(frozen=True, eq=False)
class Picture:
    """A support photograph or a view of it, at the working scale.

    Attributes:
        content: (h, w, 3) uint8 RGB.
        shown: (h, w) uint8, 255 where it shows the photograph and not a mirrored border.
        back: (2, 3) affine matrix from its (x, y) to the scaled photograph's.
        whole: Whether it is the photograph, or a view that shows all of it.
    """

    content: Uint8Array
    shown: Uint8Array
    back: npt.NDArray[np.float64]
    whole: bool


def pictures_of(content: Uint8Array, views: Sequence[View]) -> Iterator[Picture]:
    """A scaled photograph (h, w, 3) uint8 itself, then its views."""
    everything = np.full(content.shape[:2], 255, np.uint8)
    yield Picture(content, everything, np.eye(2, 3), True)
    for view in views:
        yield Picture(*view.apply(content, everything), view.shows_all)


def embed_support(
    images: Sequence[SupportImage],
    views: Sequence[View],
    image_size: int,
    encoder: Encoder,
    scoring: ScoringConfig,
    seed: int,
    progress: Progress | None = None,
    alone: bool = True,
) -> Embedded:
    """Encode every view of every support photograph.

    Args:
        images: The support set.
        views: Views besides the photographs themselves.
        image_size: Working scale.
        encoder: The encoder.
        scoring: Gives the metric.
        seed: Of the thinning of very large sets.
        progress: Called as `progress("views", done, total)`.
        alone: Whether there are no further photographs; the views of a single one then stand in for them.
    """
    share = max(1, POOL_LIMIT // len(images))
    collected: list[list[Pool]] = [[] for _ in encoder.spec.dims]
    stand_ins: list[StandIn] = []
    references: list[Reference] = []
    held_out: set[int] = set()
    total = len(images) * (len(views) + 1)
    for i, image in enumerate(images):
        pixels = image.pixels
        geometry = Geometry.fit(pixels.shape[:2], image_size, encoder.spec.multiple)  # type: ignore[arg-type]
        content = geometry.scale(pixels)
        if len(references) == i:  # none was too large yet
            references = list(kept_references((*references, Reference.make(content, geometry.photo_hw))))
        own: list[list[Pool]] = [[] for _ in encoder.spec.dims]
        for v, picture in enumerate(pictures_of(content, views)):
            mask = geometry.content_mask(picture.shown)
            levels = encoder.encode(geometry.pad(picture.content))
            patches = sum(level.shape[0] * level.shape[1] for level in levels)
            if not held_out:
                count = min(len(images), max(MIN_STAND_INS, STAND_IN_LIMIT // patches))
                held_out = {round(at) for at in np.linspace(0, len(images) - 1, count)}
            # Of a single photograph, views that show all of it stand in for further photographs.
            if (v == 0 and i in held_out) or (alone and len(images) == 1 and picture.whole):
                stand_ins.append(StandIn(levels, geometry, i, v))
            for pools, level in zip(own, levels, strict=True):
                # The photograph's own edge patches count as the inspection will see them; a view's must be whole.
                keep = inside_patches(mask, level.shape[:2], partly=picture.whole).ravel()
                vectors = normalise(level.reshape(-1, level.shape[2])[keep], scoring.metric)
                xy = _patch_centres(level.shape[:2], geometry, picture.back)[keep]
                number = np.full(len(vectors), 0, np.int32)
                pools.append(Pool(vectors, Origin(number + i, number + v, xy)))
            if progress is not None:
                progress("views", i * (len(views) + 1) + v + 1, total)
        for pools, target in zip(own, collected, strict=True):
            joined = _join(pools)
            if len(joined.vectors) > share:
                # A stable sort by "is a view" after shuffling puts the photograph's own patches first.
                shuffled = np.random.default_rng([seed, i]).permutation(len(joined.vectors))
                kept = shuffled[np.argsort(joined.origin.view[shuffled] > 0, kind="stable")][:share]
                joined = Pool(joined.vectors[kept], joined.origin[kept])
            target.append(joined)
    return Embedded(tuple(_join(pools) for pools in collected), tuple(stand_ins), len(images), tuple(references))


def _join(pools: list[Pool]) -> Pool:
    return Pool(np.concatenate([p.vectors for p in pools]), Origin.join([p.origin for p in pools]))


def _patch_centres(
    grid_hw: tuple[int, ...], geometry: Geometry, back: npt.NDArray[np.float64]
) -> npt.NDArray[np.int32]:
    height, width = grid_hw[:2]
    stride_y, stride_x = geometry.input_hw[0] / height, geometry.input_hw[1] / width
    y, x = np.mgrid[0:height, 0:width]
    view_xy = np.stack(
        [(x.ravel() + 0.5) * stride_x - 0.5, (y.ravel() + 0.5) * stride_y - 0.5, np.ones(height * width)]
    )
    input_xy = (back @ view_xy).T
    photo_xy = (input_xy + 0.5) * geometry.scale_xy() - 0.5
    return np.rint(photo_xy).astype(np.int32)


@dataclass(frozen=True)
class Enrolled:
    """Memory banks and what was learnt about their scores.

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
    """Take further good photographs into a product without its first ones.

    The bank is thinned together with the new patches, as if it were the pool of the first photographs, which it covers.
    Each new photograph is scored against the bank before it and joins the held-out scores; those of the first ones
    stay, which is on the safe side for good parts: with more photographs they could only have become smaller.

    Args:
        enrolled: The product as it is.
        embedded: The new photographs.
        scoring: How distances become a score and a map.
        image_size: Working scale.
        budget: Bank vectors a level.
        seed: Of the coreset's projection.
        known: Number of photographs it has been enrolled from.
        threads: Number of CPU threads of the banks' search.
        progress: Called as `progress(stage, done, total)`.

    Raises:
        SupportSetError: The product was enrolled from a single photograph, whose views are no measure for further ones.
    """
    calibration = enrolled.calibration
    if calibration.method != "leave-one-image-out" or len(calibration.map_peaks) != len(calibration.scores):
        raise SupportSetError(
            "expected a product enrolled from at least two photographs by this version, got one whose held-out scores "
            "say nothing about a further photograph. Enroll again from all photographs together."
        )
    folds = [measure(s.levels, enrolled.banks, enrolled.level_scale, s.geometry, scoring) for s in embedded.stand_ins]
    peaks = _peaks(folds, embedded.stand_ins, scoring, image_size)
    banks = []
    for bank, pool in zip(enrolled.banks, embedded.pools, strict=True):
        new = Origin(pool.origin.image + np.int32(known), pool.origin.view, pool.origin.xy)
        joined = _join([Pool(bank.vectors, bank.origin), Pool(pool.vectors, new)])
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
    """Thin the pools to memory banks and calibrate them on held-out photographs.

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
    # Views of one photograph are no further photographs.
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
    """Score every support photograph against the others' memory bank, all its own views taken out.

    A coreset of the others need not be computed anew for each: of the full coreset, the held-out photograph's own
    vectors are replaced by the nearest patches of the others, which cover what it covered as well as the others can.

    With a single photograph, views that show all of it are held out in turn instead.

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
            "expected at least two pictures to calibrate on, got one photograph without views. Give a second good "
            "photograph, or leave views='auto'."
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
    """Notes on support photographs that look unlike the others, by name.

    A held-out score more than half above the median of the others stands out: good parts of one support set are
    typically within a quarter of each other.

    Args:
        scores: Held-out scores, one a photograph.
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
