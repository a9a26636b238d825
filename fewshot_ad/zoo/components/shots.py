"""Shared by the few-shot baselines: images with their views, patch grids, and the smoothed map of a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import cv2
import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import BoolArray, Float32Array, Progress, Uint8Array
from fewshot_ad.encoder.pyramid import local_average
from fewshot_ad.enrollment.views import View, ViewsSpec, parse_views
from fewshot_ad.errors import SupportSetError, ZooError
from fewshot_ad.images import inside_patches
from fewshot_ad.zoo.components.memory import require_room
from fewshot_ad.zoo.components.tensors import Backbone, require_images, resized, unit_tensor

# Views applied one after the other, which make one view of the image.
Chain: TypeAlias = tuple[View, ...]


def read_views(spec: ViewsSpec) -> tuple[Chain, ...]:
    """Parse views as `support.parse_views` does, each into a chain of one.

    Raises:
        ZooError: A name is unknown or a strength impossible; `auto` is for the method `fewshot_ad` only.
    """
    try:
        return tuple((view,) for view in parse_views(spec))
    except SupportSetError as error:
        raise ZooError(f"views: {error}") from error


def shots(
    normal: Sequence[Uint8Array], side: int, chains: Sequence[Chain], progress: Progress | None = None
) -> Iterator[tuple[torch.Tensor, Uint8Array]]:
    """Images of good parts, one after the other, each followed by its views.

    Args:
        normal: Images, (H, W, 3) uint8 RGB each, of any sizes.
        side: Both sides they are scaled to, in pixels.
        chains: The views.
        progress: Called as `progress("features", done, total)`, when the caller asks for the next image.

    Yields:
        (V, 3, side, side) float32 in 0..1, and (V, side, side) uint8, 255 where that shows the image and not a
        mirrored border; V = 1 + views.

    Raises:
        ZooError: There are no images.
    """
    require_images(normal)
    everything = np.full((side, side), 255, np.uint8)
    for i in range(len(normal)):
        content = np.ascontiguousarray(resized([normal[i]], side)[0].permute(1, 2, 0).numpy())
        views, masks = [content], [everything]
        for chain in chains:
            image, mask = content, everything
            for step in chain:
                image, mask, _ = step.apply(image, mask)
            views.append(image)
            masks.append(mask)
        yield unit_tensor(np.stack(views)), np.stack(masks)
        if progress is not None:
            progress("features", i + 1, len(normal))


def embed_shots(
    name: str,
    normal: Sequence[Uint8Array],
    side: int,
    chains: Sequence[Chain],
    embed: Callable[[torch.Tensor], torch.Tensor],
    progress: Progress | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Feature maps of all images and their views.

    Args:
        name: Name of the baseline, for the message.
        normal: As for `shots`, like `side`, `chains` and `progress`.
        side: Both sides of the input, in pixels.
        chains: The views.
        embed: (V, 3, side, side) float32 in 0..1 -> (V, d, h, w).
        progress: Called as `progress("features", done, total)`.

    Returns:
        (n, d, h, w), and (n, h, w) bool: the patches that lie wholly on the image; n = images times (1 + views).

    Raises:
        ZooError: There are no images, or the features of all would not fit into memory.
    """
    features, shown = [], []
    for batch, masks in shots(normal, side, chains, progress):
        features.append(embed(batch))
        if len(features) == 1:
            require_room(name, features[0].nbytes, len(normal), len(chains))
        shown.append(torch.as_tensor(shown_patches(masks, features[-1].shape[2:])))
    return torch.cat(features), torch.cat(shown)


def shown_patches(masks: Uint8Array, grid_hw: Sequence[int]) -> BoolArray:
    """(V, h, w): the patches of a grid that lie wholly on the image; `masks` are those of `shots`."""
    return np.stack([inside_patches(mask, grid_hw) for mask in masks])


def joined(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate stages (N, C, h, w), finest first, on the grid of the finest: (N, sum of C, h, w)."""
    grid_hw = features[0].shape[2:]
    coarse = [F.interpolate(f, grid_hw, mode="bilinear", align_corners=False) for f in features[1:]]
    return torch.cat([features[0], *coarse], dim=1)


def patch_features(network: Backbone, batch: torch.Tensor) -> torch.Tensor:
    """A network's stages, averaged over their neighbors and joined: (N, 3, S, S) in 0..1 -> (N, d, h, w)."""
    # Not inference mode: some methods train on these.
    with torch.no_grad():
        return joined([local_average(stage) for stage in network(batch)])


def smoothed(grid: Float32Array, side: int, sigma: float) -> Float32Array:
    """A grid (h, w) float32 -> (side, side) float32, enlarged bilinearly, then smoothed by a Gaussian.

    Args:
        grid: Distances of the patches.
        side: Side of the network's input, in pixels.
        sigma: Standard deviation in pixels of that input; 0 turns the smoothing off.
    """
    heat = cv2.resize(np.ascontiguousarray(grid, np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(heat, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101) if sigma > 0 else heat
