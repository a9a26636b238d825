"""What the few-shot baselines share: images with their views, patch grids, and the smoothed map of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias, TypeVar

import cv2
import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import BoolArray, Float32Array, Progress, Uint8Array
from fewshot_ad.enrollment.support import View, ViewsSpec, parse_views
from fewshot_ad.errors import SupportSetError, ZooError
from fewshot_ad.images import inside_patches
from fewshot_ad.zoo.components.tensors import resized

# A view that is made by one augmentation after another.
Chain: TypeAlias = tuple[View, ...]
Fitted = TypeVar("Fitted")


def read_views(spec: ViewsSpec) -> tuple[Chain, ...]:
    """A choice of views as in `support.parse_views`, each a chain of one.

    Raises:
        ZooError: An unknown name or an impossible strength; `auto` is for the method `fewshot_ad` only.
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
        progress: Called as `progress("features", done, total)`, when the caller asks for the next one.

    Yields:
        (V, 3, side, side) float32 in 0..1, and (V, side, side) uint8, 255 where that shows the image and not a
        mirrored border; V = 1 + views.

    Raises:
        ZooError: There is none.
    """
    if len(normal) == 0:
        raise ZooError("expected at least one image of a good part, got none.")
    everything = np.full((side, side), 255, np.uint8)
    for i in range(len(normal)):
        content = np.ascontiguousarray(resized([normal[i]], side)[0].permute(1, 2, 0).numpy())
        pictures, masks = [content], [everything]
        for chain in chains:
            picture, mask = content, everything
            for view in chain:
                picture, mask, _ = view.apply(picture, mask)
            pictures.append(picture)
            masks.append(mask)
        yield torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255, np.stack(masks)
        if progress is not None:
            progress("features", i + 1, len(normal))


def shown_patches(masks: Uint8Array, grid_hw: Sequence[int]) -> BoolArray:
    """(V, h, w): the patches of a grid that lie wholly on the image; `masks` are those of `shots`."""
    return np.stack([inside_patches(mask, grid_hw) for mask in masks])


def joined(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stage features (N, C, h, w), finest first, side by side on the finest grid: (N, sum of C, h, w)."""
    grid_hw = features[0].shape[2:]
    coarse = [F.interpolate(f, grid_hw, mode="bilinear", align_corners=False) for f in features[1:]]
    return torch.cat([features[0], *coarse], dim=1)


def smoothed(grid: Float32Array, side: int, sigma: float) -> Float32Array:
    """A grid (h, w) float32 -> (side, side) float32, enlarged bilinearly, then smoothed by a Gaussian.

    Args:
        grid: Distances of the patches.
        side: Of the input the patches are of, in pixels.
        sigma: Standard deviation in pixels of that input; 0 leaves the smoothing out.
    """
    heat = cv2.resize(np.ascontiguousarray(grid, np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(heat, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101) if sigma > 0 else heat


def fitted(model: Fitted | None) -> Fitted:
    """What `fit` has made.

    Raises:
        ZooError: It has not been called.
    """
    if model is None:
        raise ZooError("expected a fitted method, got one that has seen no images. Call fit first.")
    return model
