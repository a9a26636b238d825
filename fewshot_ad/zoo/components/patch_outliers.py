"""How unlike the other images each patch is, among those at its own position."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
import torch

from fewshot_ad.arrays import Float32Array, IndexArray, Int32Array, Progress
from fewshot_ad.zoo.components.gaussians import Gaussians

Discriminator: TypeAlias = Literal["lof", "nearest", "gaussian"]

# Dimensions that the features are projected to before they are compared.
DIMS = 128
# Positions per step, which bounds the memory of the distances.
POSITIONS = 64
# Added to mean distances, so that images that repeat each other have a density.
SMALLEST = 1e-10


def outlier_weights(
    features: torch.Tensor,
    discriminator: Discriminator = "lof",
    neighbors: int = 6,
    seed: int = 0,
    progress: Progress | None = None,
) -> torch.Tensor:
    """How much of an outlier each patch is: about 1 for one like those of the other images, more for an outlier.

    Args:
        features: (n, d, h, w) feature maps of n images. They are projected to 128 random dimensions first.
        discriminator: `lof`, the local outlier factor; `nearest`, 1 + distance to the nearest other image; or
            `gaussian`, 1 + Mahalanobis distance to a Gaussian of all n images. The fewer these are, the less their
            distances from it differ: of fewer images than dimensions, all are nearly as far.
        neighbors: k of the local outlier factor, at least 1; all other images where there are fewer.
        seed: Of the projection.
        progress: Called as `progress("outliers", done, h * w)`; with `gaussian` as `Gaussians.fit` does.

    Returns:
        (n, h, w) float32; 1 everywhere if there is no other image to compare with.

    Source: Jiang et al. 2022 (SoftPatch); the projection and the 1 that is added, their code.
    """
    count, _, height, width = features.shape
    if count == 1:
        return torch.ones((count, height, width))
    points = projected(features, seed)
    if discriminator == "gaussian":
        gaussians = Gaussians.fit(points, torch.ones((count, height, width), dtype=torch.bool), progress=progress)
        return 1 + torch.stack([gaussians.distances(image) for image in points])
    positions = points.flatten(2).permute(2, 0, 1).contiguous()
    weights = torch.empty(positions.shape[:2])
    for start in range(0, len(positions), POSITIONS):
        block = positions[start : start + POSITIONS]
        # By differences: a product of matrices would lose the distances between images that are nearly the same.
        distances = torch.cdist(block, block, compute_mode="donot_use_mm_for_euclid_dist").double()
        distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        outliers = 1 + distances.amin(2) if discriminator == "nearest" else local_outlier_factor(distances, neighbors)
        weights[start : start + POSITIONS] = outliers.float()
        if progress is not None:
            progress("outliers", min(start + POSITIONS, len(positions)), len(positions))
    return weights.T.reshape(count, height, width)


def like_others(patches: Float32Array, images: Int32Array, views: Int32Array, share: float) -> IndexArray:
    """Which patches stay when those least like the other images are left out.

    Args:
        patches: (n, d) float32.
        images: (n,) the image that each is of; where there is no other, all patches stay.
        views: (n,) its view, 0 for the image as it is: only such patches of other images are compared with.
        share: Share of the patches that is left out, 0..1: those farthest from their nearest one in another image.

    Returns:
        Indices of the patches that stay, in their order.
    """
    distances = np.zeros(len(patches))
    if len(np.unique(images)) < 2:
        return np.arange(len(patches))
    for image in np.unique(images):
        own, others = images == image, (images != image) & (views == 0)
        reference = torch.from_numpy(patches[others])
        # So many rows at a time, which bounds the memory of the distances.
        blocks = torch.from_numpy(patches[own]).split(POSITIONS * POSITIONS)
        distances[own] = torch.cat([torch.cdist(block, reference).amin(1) for block in blocks]).numpy()
    kept = len(patches) - int(share * len(patches))
    return np.sort(np.argsort(distances, kind="stable")[:kept])


def local_outlier_factor(distances: torch.Tensor, neighbors: int) -> torch.Tensor:
    """Mean density of a point's neighbors over its own, for each point of several sets.

    Args:
        distances: (p, n, n) between the n points of each of p sets, infinite on the diagonal.
        neighbors: k, at least 1; all other points where there are fewer.

    Returns:
        (p, n).

    Source: Breunig et al. 2000, definitions 3 to 7, with exactly k neighbors where distances are equal.
    """
    near, which = distances.topk(min(neighbors, distances.shape[2] - 1), dim=2, largest=False)
    reach = torch.maximum(near, _at(near[:, :, -1], which))
    density = 1 / (reach.mean(2) + SMALLEST)
    return _at(density, which).mean(2) / density


def _at(values: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Values (p, n) of the points (p, n, k)."""
    return values.gather(1, which.flatten(1)).view(which.shape)


def projected(features: torch.Tensor, seed: int) -> torch.Tensor:
    """(n, d, h, w) -> (n, 128, h, w), by a random matrix with entries within 1 / sqrt(d); as it is if d is smaller."""
    dims = features.shape[1]
    if dims <= DIMS:
        return features
    matrix = torch.rand((DIMS, dims), generator=torch.Generator().manual_seed(seed)).mul_(2).sub_(1)
    return torch.einsum("nchw,dc->ndhw", features, matrix / math.sqrt(dims))
