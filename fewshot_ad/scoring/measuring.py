"""Distances -> map and score, before any threshold."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array
from fewshot_ad.images import Geometry, inside_patches, patch_cares
from fewshot_ad.inspection.inspectability import closeness
from fewshot_ad.scoring.config import ScoringConfig
from fewshot_ad.search.memory_bank import MemoryBank
from fewshot_ad.search.nearest import normalize, to_distance
from fewshot_ad.search.one_pass import OnePass


@dataclass(frozen=True, eq=False)
class Scale:
    """What images are compared with at one working scale.

    Attributes:
        image_size: Working scale in pixels, see `Geometry.fit`.
        banks: One memory bank per level.
        level_scale: One divisor per level that brings the levels' distances to a common scale.
        divisor: Divides scores and maps of this working scale, so that they can be compared with another's.
        one_pass: Encoder and banks as one graph; None where the engine or the image score needs the embeddings.
    """

    image_size: int
    banks: tuple[MemoryBank, ...]
    level_scale: tuple[float, ...]
    divisor: float = 1.0
    one_pass: OnePass | None = None


@dataclass(frozen=True, eq=False)
class Measurement:
    """What an image's patches say at one working scale, before any threshold.

    Attributes:
        score: Image score.
        score_maps: One (h, w) float32 array of patch distances per level, on the common scale.
        geometry: How the image lies in the encoder's input.
    """

    score: float
    score_maps: tuple[Float32Array, ...]
    geometry: Geometry

    def divided(self, divisor: float) -> Measurement:
        """The same with score and maps divided."""
        if divisor == 1:
            return self
        score_maps = tuple(score_map / np.float32(divisor) for score_map in self.score_maps)
        return Measurement(self.score / divisor, score_maps, self.geometry)

    def distances(self, at: int) -> Float32Array:
        """The patch distances of a level, (n,) float32: of a region of interest, only those within."""
        score_map = self.score_maps[at]
        if self.geometry.roi is None:
            return score_map.ravel()
        return score_map[patch_weights(self.geometry, score_map.shape, 1.0) > 0]

    @property
    def median_distance(self) -> float:
        """Of the patches that show any of the image; of the first level. NaN where none is looked at."""
        score_map = self.score_maps[0]
        seen = score_map[patch_weights(self.geometry, score_map.shape, 1.0) > 0]
        return float(np.median(seen)) if seen.size else float("nan")

    @property
    def closeness(self) -> float:
        """How good the best part of the image looks, see `inspectability.closeness`; of the first level."""
        score_map = self.score_maps[0]
        return closeness(score_map, patch_weights(self.geometry, score_map.shape, 1.0) > 0)


def measure_at(scale: Scale, levels: Sequence[Float32Array], geometry: Geometry, scoring: ScoringConfig) -> Measurement:
    """`measure` at a product's working scale, comparable with its others."""
    return measure(levels, scale.banks, scale.level_scale, geometry, scoring).divided(scale.divisor)


def measure(
    levels: Sequence[Float32Array],
    banks: Sequence[MemoryBank],
    level_scale: Sequence[float],
    geometry: Geometry,
    scoring: ScoringConfig,
) -> Measurement:
    """Patch distances and image score.

    Args:
        levels: One (h, w, d) float32 array of patch embeddings per level.
        banks: One memory bank per level.
        level_scale: One divisor per level.
        geometry: Of the image; patches that show nothing of it do not count.
        scoring: How.
    """
    queries = [normalize(level.reshape(-1, level.shape[2]), scoring.metric) for level in levels]
    score_maps = tuple(
        (bank.nearest(q) / np.float32(scale)).reshape(level.shape[:2])
        for q, level, bank, scale in zip(queries, levels, banks, level_scale, strict=True)
    )
    if scoring.image_score == "top_mean":
        return Measurement(top_mean_score(score_maps, geometry, scoring), score_maps, geometry)
    score = 0.0
    for q, score_map, bank, scale in zip(queries, score_maps, banks, level_scale, strict=True):
        weights = patch_weights(geometry, score_map.shape, scoring.edge_weight)
        at = int(np.argmax(score_map * weights))
        score = max(score, reweighted(q[at], bank, scale, scoring.neighbors) * float(weights.flat[at]))
    return Measurement(score, score_maps, geometry)


def joint_score(measured: Sequence[Measurement]) -> float:
    """The image score of all working scales: the largest, since a defect that one of them shows is a defect."""
    return max(m.score for m in measured)


def top_mean_score(score_maps: Sequence[Float32Array], geometry: Geometry, scoring: ScoringConfig) -> float:
    """Image score of patch distances, one (h, w) float32 array per level: the largest of the levels' `top_mean`."""
    score = 0.0
    for score_map in score_maps:
        weights = patch_weights(geometry, score_map.shape, scoring.edge_weight)
        score = max(score, top_mean((score_map * weights).ravel(), top_count(weights, scoring)))
    return score


def top_count(weights: Float32Array, scoring: ScoringConfig) -> int:
    """How many of a grid's patches the image score averages, at least 1.

    Args:
        weights: Of the patches, see `patch_weights`; those that show nothing of the image do not count.
        scoring: How.
    """
    counted = int(np.count_nonzero(weights))
    if scoring.max_patches is not None:
        counted = min(counted, scoring.max_patches)
    return max(1, int(scoring.top_fraction * counted))


def patch_weights(geometry: Geometry, grid_hw: tuple[int, ...], edge_weight: float) -> Float32Array:
    """Weight of each patch in the score, (h, w) float32: 0 off the image, `edge_weight` on its edge, else 1.

    Of a registered image, patches that show some of a mirrored edge are off the image. What lies outside the region of
    interest has none, and within it each patch has its share of what it counts.
    """
    if geometry.turned is None:
        return _weights_as_it_lies(geometry, grid_hw, edge_weight)
    straight = _weights_as_it_lies(dataclasses.replace(geometry, turned=None), grid_hw, edge_weight)
    return np.where(inside_patches(geometry.content_mask(), grid_hw), straight, np.float32(0))


@functools.lru_cache(maxsize=64)
def _weights_as_it_lies(geometry: Geometry, grid_hw: tuple[int, ...], edge_weight: float) -> Float32Array:
    shown = inside_patches(geometry.content_mask(), grid_hw, partly=True)
    rows, columns = int(shown[:, 0].sum()), int(shown[0].sum())
    weights = np.zeros(grid_hw, np.float32)
    weights[:rows, :columns] = edge_weight
    weights[1 : rows - 1, 1 : columns - 1] = 1
    cares = geometry.cares()
    return weights if cares is None else weights * patch_cares(cares, geometry.input_hw, grid_hw)


def top_mean(distances: Float32Array, count: int) -> float:
    """Mean of the `count` largest of the distances (n,)."""
    return float(np.partition(distances, len(distances) - count)[-count:].mean())


def reweighted(query: Float32Array, bank: MemoryBank, scale: float, neighbors: int) -> float:
    """PatchCore's image score: the largest patch distance, less where the bank is dense around its nearest vector.

    s = (1 - exp(d*) / sum over b in N_b(m*) of exp(d_b)) d*, where d_b is the distance of the patch to b, and N_b(m*)
    the nearest bank vectors of its own nearest one m*.

    Args:
        query: (d,) embedding of the patch with the largest distance.
        bank: The memory bank.
        scale: Divisor to the common scale.
        neighbors: b.

    Source: Roth et al. 2022, eq. 7.
    """
    first, nearest = bank.search(query[None])
    distance = float(first[0, 0]) / scale
    if len(bank) < 2:
        return distance
    _, around = bank.search(bank.vectors[nearest[0]], neighbors)
    difference = bank.vectors[np.union1d(around[0], nearest[0])] - query
    distances = to_distance(np.einsum("ij,ij->i", difference, difference), bank.metric) / scale
    # exp(d*) / sum exp(d_b) = 1 / sum exp(d_b - d*), with the largest exponent taken out against overflow.
    exponents = distances - distance
    largest = float(exponents.max())
    share = np.exp(-largest) / float(np.exp(exponents - largest).sum())
    return float((1 - min(1.0, share)) * distance)


def joint_map(measured: Sequence[Measurement], image_sizes: Sequence[int], sigma: float) -> Float32Array:
    """The anomaly map of all working scales: their mean, at the finest.

    Of the ways to join them it has the best AU-PRO: what both show is a defect, what one shows is often an edge.

    Args:
        measured: One per working scale, the finest last.
        image_sizes: The working scales in pixels.
        sigma: See `ScoringConfig`.

    Returns:
        (h, w) float32 of the finest scale's `Geometry.content_hw`.
    """
    maps = [anomaly_map(m.score_maps, m.geometry, sigma, size) for m, size in zip(measured, image_sizes, strict=True)]
    joined = maps[-1]
    for coarser in maps[:-1]:
        joined = joined + cv2.resize(coarser, joined.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return joined if len(maps) == 1 else joined / np.float32(len(maps))


def anomaly_map(score_maps: Sequence[Float32Array], geometry: Geometry, sigma: float, image_size: int) -> Float32Array:
    """Patch distances -> smoothed map at the working scale.

    Each level is brought to the encoder's input size bilinearly, and the levels' maximum is smoothed. There is no more
    detail in it than that, so it costs the same for every camera; `Inspection.anomaly_map` enlarges it.

    Returns:
        (h, w) float32 of `geometry.content_hw`.
    """
    (height, width), spread = geometry.input_hw, sigma * image_size / 256
    if geometry.roi is not None:
        return geometry.crop(_map_within(score_maps, geometry, spread))
    if len(score_maps) == 1:
        return geometry.crop(_enlarged(score_maps[0], (height, width), spread))
    joined = cv2.resize(score_maps[0], (width, height), interpolation=cv2.INTER_LINEAR)
    for score_map in score_maps[1:]:
        np.maximum(joined, cv2.resize(score_map, (width, height), interpolation=cv2.INTER_LINEAR), out=joined)
    if sigma > 0:
        joined = cv2.GaussianBlur(joined, (0, 0), spread, borderType=cv2.BORDER_REFLECT_101)
    return geometry.crop(joined)


def _map_within(score_maps: Sequence[Float32Array], geometry: Geometry, spread: float) -> Float32Array:
    """The map of a region of interest: smoothed from its own patches only.

    What lies outside is like nothing in the memory bank; smoothed along, it would reach into the region.
    """
    joined = np.zeros(geometry.input_hw, np.float32)
    for score_map in score_maps:
        cares, share = smoothing_within(geometry, score_map.shape, spread)
        np.maximum(joined, _enlarged(score_map * cares, geometry.input_hw, spread) / share, out=joined)
    return joined


@functools.lru_cache(maxsize=16)
def smoothing_within(geometry: Geometry, grid_hw: tuple[int, ...], spread: float) -> tuple[Float32Array, Float32Array]:
    """Constants of the map of a region of interest.

    Args:
        geometry: With a region.
        grid_hw: Height and width of the grid of patches.
        spread: Standard deviation of the smoothing in pixels of the encoder's input.

    Returns:
        How much each patch counts, (h, w) float32, and by what each pixel of the smoothed map is divided, (H, W)
        float32: the share of its smoothing that lies within, never near 0.
    """
    cares = geometry.cares()
    if cares is None:
        raise ValueError("expected a geometry with a region of interest")
    weights = patch_cares(cares, geometry.input_hw, grid_hw)
    share = _enlarged((weights > 0).astype(np.float32), geometry.input_hw, spread)
    return weights, np.maximum(share, np.float32(0.25))


def _enlarged(score_map: Float32Array, size_hw: tuple[int, int], spread: float) -> Float32Array:
    """Patch distances, enlarged and smoothed."""
    height, width = size_hw
    rows, columns = (_enlarge(n, size, spread) for n, size in zip(score_map.shape, size_hw, strict=True))
    enlarged = np.empty((height, width), np.float32)
    # BLAS starts threads above 2^18 multiplications, and they would go on spinning beside the next encoder run. A map
    # of which a single row is more than that is made at once: by rows it would take seconds.
    step = 2**18 // (columns.shape[0] * columns.shape[1]) or height
    for start in range(0, height, step):
        np.matmul(rows[start : start + step] @ score_map, columns.T, out=enlarged[start : start + step])
    return enlarged


@functools.lru_cache(maxsize=64)
def _enlarge(patches: int, size: int, spread: float) -> Float32Array:
    """Enlarging and smoothing of one axis as a matrix (size, patches): both are linear and work by axis.

    Multiplying by it takes a third of the time of doing both one after the other (`benchmarks/levers.py`).
    """
    matrix = cv2.resize(np.eye(patches, dtype=np.float32), (patches, size), interpolation=cv2.INTER_LINEAR)
    if spread > 0:
        # A kernel one column wide: each column by itself.
        matrix = cv2.GaussianBlur(matrix, (1, 0), spread, sigmaY=spread, borderType=cv2.BORDER_REFLECT_101)
    return matrix
