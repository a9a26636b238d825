"""Defects that an operator has shown: the patches that are kept of them, and whether an image has patches like them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float32Array, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.embedding import embed_image, scale_image
from fewshot_ad.errors import SupportSetError
from fewshot_ad.images import Geometry, inside_patches
from fewshot_ad.scoring import Measurement, Model, joint_score, measure_at, patch_weights, top_count
from fewshot_ad.search.memory_bank import stored_dtype
from fewshot_ad.search.nearest import NearestSearch, normalize, to_distance

# A patch is like a known defect where its distance to that is below this share of its distance to good patches, and an
# image where at least so many of the patches are that make its score.
NEARER, LIKE = 1.0, 0.3


class Seen(NamedTuple):
    """An image as a product sees it.

    Attributes:
        levels: Of each working scale, per level, (h, w, d) float32 embeddings.
        measured: One per working scale.
    """

    levels: tuple[tuple[Float32Array, ...], ...]
    measured: tuple[Measurement, ...]

    @property
    def score(self) -> float:
        """The image score."""
        return joint_score(self.measured)


def see(image: Uint8Array, model: Model, encoder: Encoder) -> Seen:
    """Embed an image (H, W, 3) uint8 RGB at each working scale and compare it with the good patches."""
    levels, measured = [], []
    for scale in model.scales:
        scaled = scale_image(image, scale.image_size, encoder, model.framing)
        embedded = embed_image(scaled, encoder).levels
        levels.append(embedded)
        measured.append(measure_at(scale, embedded, scaled.geometry, model.scoring))
    return Seen(tuple(levels), tuple(measured))


def defect_patches(
    seen: Seen, model: Model, region: tuple[int, int, int, int] | None, most: int
) -> tuple[Float32Array, ...]:
    """The most unusual patches of a defect, of each working scale, per level, (n, d) float32 as float16 holds them.

    Args:
        seen: The image.
        model: The product's.
        region: x, y, width and height in pixels of the image; None takes the patches that make its score.
        most: Patches of each, at most.

    Raises:
        SupportSetError: The region shows nothing that is inspected.
    """
    found = []
    for levels, measurement in zip(seen.levels, seen.measured, strict=True):
        for level, score_map in zip(levels, measurement.score_maps, strict=True):
            weights = patch_weights(measurement.geometry, score_map.shape, model.scoring.edge_weight)
            count = top_count(weights, model.scoring)
            if region is not None:
                weights = np.where(_shows(region, measurement.geometry, score_map.shape), weights, np.float32(0))
                count = int(np.count_nonzero(weights))
            if not count:
                raise SupportSetError(
                    f"expected a region of the part as it is inspected, got {region}, of which nothing is left once "
                    "the image is brought into its pose. Give a larger one, or none."
                )
            at = np.argsort(-(score_map * weights).ravel(), kind="stable")[: min(most, count)]
            patches = normalize(level.reshape(-1, level.shape[2]), model.scoring.metric)[at]
            # As they are stored.
            found.append(patches.astype(stored_dtype(patches)).astype(np.float32))
    return tuple(found)


def _shows(region: tuple[int, int, int, int], geometry: Geometry, grid_hw: tuple[int, ...]) -> BoolArray:
    """Which patches of a grid show any of a region."""
    x, y, width, height = region
    across, down = geometry.scale_xy()
    # At least the pixel of the scaled image that it lies in.
    left, top = int(x / across), int(y / down)
    right, bottom = (math.ceil((x + width) / across), math.ceil((y + height) / down))
    content = np.zeros(geometry.content_hw, np.uint8)
    content[top : max(bottom, top + 1), left : max(right, left + 1)] = 255
    if geometry.turned is not None:
        # Not mirrored at its edges, as the image is.
        content = cv2.warpAffine(content, geometry.forward, content.shape[::-1], flags=cv2.INTER_LINEAR)
        content = np.where(content > 0, 255, 0).astype(np.uint8)
    return inside_patches(geometry.content_mask(content), grid_hw, partly=True)


def like_defect(seen: Seen, model: Model, patches: Sequence[Float32Array]) -> float:
    """Share of the patches that make an image's score and are nearer to a defect's than to good ones, 0..1.

    Args:
        seen: The image.
        model: The product's.
        patches: Of the defect, as `defect_patches` returns them.
    """
    shares, at = [], 0
    for scale, levels, measurement in zip(model.scales, seen.levels, seen.measured, strict=True):
        for level, score_map, level_scale in zip(levels, measurement.score_maps, scale.level_scale, strict=True):
            weights = patch_weights(measurement.geometry, score_map.shape, model.scoring.edge_weight)
            top = np.argsort(-(score_map * weights).ravel(), kind="stable")[: top_count(weights, model.scoring)]
            queries = normalize(level.reshape(-1, level.shape[2])[top], model.scoring.metric)
            squared = NearestSearch(patches[at], lasting=False)(queries)
            distances = to_distance(squared, model.scoring.metric) / np.float32(level_scale * scale.divisor)
            shares.append(float(np.mean(distances < NEARER * score_map.ravel()[top])))
            at += 1
    return max(shares)


def score_against(patches: Sequence[Float32Array], model: Model) -> float:
    """The score of an image of which the patches that made it are known, against banks that may have grown since.

    It is a mean of their distances, which is not quite the score: patches at the image's edge count less in that, and
    there may have been more of them. The caller keeps by which factor it differs.

    Args:
        patches: Of the whole image, as `defect_patches` returns them.
        model: The product's, or a later one.
    """
    means, at = [], 0
    for scale in model.scales:
        for bank, level_scale in zip(scale.banks, scale.level_scale, strict=True):
            means.append(float(bank.nearest(patches[at]).mean()) / (level_scale * scale.divisor))
            at += 1
    return max(means)
