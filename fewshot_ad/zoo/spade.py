"""SPADE: the most similar good images, then the nearest pixel features among theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.enrollment.support import ViewsSpec
from fewshot_ad.errors import ZooError
from fewshot_ad.search.nearest import NearestSearch
from fewshot_ad.zoo.components.shots import Chain, fitted, joined, read_views, shots, shown_patches, smoothed
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Predictions, baseline


@dataclass(frozen=True, eq=False)
class _Gallery:
    """The good images and their views.

    Attributes:
        whole: (d,) float32 feature of each.
        pixels: (m, D) float16 features of its positions that show the image; rounding halves what has to be kept.
    """

    whole: list[Float32Array] = field(default_factory=list)
    pixels: list[npt.NDArray[np.float16]] = field(default_factory=list)


class Spade:
    """See `spade` for the arguments.

    Source: Cohen & Hoshen 2020: K nearest images and image score, eq. 1-2; pixel score, eq. 3; pyramid, section
    3.4.
    """

    def __init__(
        self, backbone: Backbone, image_size: int, views: tuple[Chain, ...], neighbors: int, sigma: float
    ) -> None:
        self._backbone = backbone
        self._side = image_size
        self._views = views
        self._neighbors = neighbors
        self._sigma = sigma
        self._gallery: _Gallery | None = None

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Keep the features of the images and their views."""
        gallery = _Gallery()
        for batch, masks in shots(normal, self._side, self._views, progress):
            whole, grids = self._embed(batch)
            gallery.whole.extend(whole)
            keep = shown_patches(masks, grids.shape[1:3])
            gallery.pixels.extend(grid[shown].astype(np.float16) for grid, shown in zip(grids, keep, strict=True))
        self._gallery = gallery

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Scores by eq. 2 and maps by eq. 3 with one neighbor a pixel."""
        gallery = fitted(self._gallery)
        wholes = np.stack(gallery.whole)

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            whole, grids = self._embed(to_batch([image], self._side))
            squared = np.square(wholes - whole[0]).sum(1)
            similar = np.argsort(squared, kind="stable")[: self._neighbors]
            queries = grids[0].reshape(-1, grids.shape[3])
            nearest = np.full(len(queries), np.inf, np.float32)
            for at in similar:
                if len(gallery.pixels[at]):
                    search = NearestSearch(gallery.pixels[at].astype(np.float32), lasting=False)
                    np.minimum(nearest, search(queries), out=nearest)
            # The root of eq. 3: the same order of patches, and distances add up when the map is smoothed.
            grid = np.sqrt(np.maximum(nearest, 0)).reshape(grids.shape[1:3])
            return float(squared[similar].mean()), smoothed(grid, self._side, self._sigma)

        return one_by_one(images, judge)

    def model_bytes(self) -> int:
        """The backbone and all features."""
        gallery = fitted(self._gallery)
        features = sum(w.nbytes for w in gallery.whole) + sum(p.nbytes for p in gallery.pixels)
        return tensor_bytes(self._backbone) + features

    def _embed(self, batch: torch.Tensor) -> tuple[Float32Array, Float32Array]:
        """(N, 3, S, S) in 0..1 -> (N, d) of the whole images and (N, h, w, D) of their positions, float32."""
        with torch.inference_mode():
            features = self._backbone(batch)
            pixels = joined(features).permute(0, 2, 3, 1)
            return features[-1].mean((2, 3)).numpy(), np.ascontiguousarray(pixels.numpy())


@baseline(
    Card(
        name="spade",
        title="SPADE",
        paper="Cohen, Hoshen 2020, Sub-Image Anomaly Detection with Deep Pyramid Correspondences, arXiv:2005.02357",
        year=2020,
        family="memory bank",
        supervision="good images",
        source="fewshot_ad",
        license="Apache-2.0",
        maps=True,
        needs_masks=False,
        needs_internet=True,
        trains=False,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, instead of ImageNet's WideResNet50; "
        "its third stage is pooled for the whole image instead of the fourth, which the distilled network lacks; "
        "256 pixels without the crop to 224; with fewer images than K all of them are compared; views='none' as "
        "published.",
    )
)
def spade(
    *,
    seed: int = 0,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (1, 2, 3),
    image_size: int = 256,
    views: ViewsSpec = "none",
    neighbors: int = 50,
    sigma: float = 4.0,
) -> Spade:
    """SPADE.

    Args:
        seed: Nothing in it is random but a backbone with `weights="random"`.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`; the last is also pooled for the whole image.
        image_size: Both sides of the input, in pixels.
        views: Views of each image besides itself, see `support.parse_views`; each counts as an image.
        neighbors: K, at most as many as there are.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.
    """
    if neighbors < 1:
        raise ZooError(f"spade: expected neighbors of at least 1, got {neighbors}.")
    with seeded(seed):
        network = Backbone(backbone, stages, weights)
    return Spade(network, image_size, read_views(views), neighbors, sigma)
