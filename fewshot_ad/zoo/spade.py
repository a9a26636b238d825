"""SPADE: the most similar good images, then the nearest pixel features among theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.enrollment.views import ViewsSpec
from fewshot_ad.errors import ZooError
from fewshot_ad.search.nearest import NearestSearch
from fewshot_ad.zoo.components.memory import require_room
from fewshot_ad.zoo.components.shots import Chain, joined, read_views, shots, shown_patches, smoothed
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted


@baseline(
    Card(
        name="spade",
        title="SPADE",
        paper="Cohen, Hoshen 2020, Sub-Image Anomaly Detection with Deep Pyramid Correspondences, arXiv:2005.02357",
        year=2020,
        family="memory bank",
        needs_internet=True,
        trains=False,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, instead of ImageNet's WideResNet50; "
        "its third stage is pooled for the whole image instead of the fourth, which the distilled network lacks; "
        "256 pixels without the crop to 224; with fewer images than K all of them are compared; views='none' as "
        "published.",
        original=Original(
            options={"backbone": "wide_resnet50_2"},
            pretrained="ImageNet",
            departs=("the third stage pooled for the whole image, not the fourth", "the whole image, no center crop"),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class Spade:
    """SPADE.

    Attributes:
        seed: Nothing is random but a backbone with `weights="random"`.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`; the last is also pooled for the whole image.
        image_size: Both sides of the input, in pixels.
        views: Views of each image besides itself, see `support.parse_views`; each counts as an image.
        neighbors: K, number of similar images, at least 1; all images where there are fewer.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: Cohen & Hoshen 2020: K nearest images and image score, eq. 1-2; pixel score, eq. 3; pyramid, section
    3.4.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stages: Sequence[int] = (1, 2, 3)
    image_size: int = 256
    views: ViewsSpec = "none"
    neighbors: int = 50
    sigma: float = 4.0
    _network: Backbone = field(init=False, repr=False)
    _chains: tuple[Chain, ...] = field(init=False, repr=False)
    _gallery: _Gallery | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.neighbors < 1:
            raise ZooError(f"spade: expected neighbors of at least 1, got {self.neighbors}.")
        with seeded(self.seed):
            self._network = Backbone(self.backbone, self.stages, self.weights)
        self._chains = read_views(self.views)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Keep the features of the images and their views; see `Method.fit`."""
        whole: list[Float32Array] = []
        pixels: list[npt.NDArray[np.float16]] = []
        for batch, masks in shots(normal, self.image_size, self._chains, progress):
            pooled, grids = self._embed(batch)
            whole.extend(pooled)
            keep = shown_patches(masks, grids.shape[1:3])
            pixels.extend(grid[shown].astype(np.float16) for grid, shown in zip(grids, keep, strict=True))
            if len(pixels) == len(batch):
                # They stay apart, image by image, so nothing of them is joined.
                kept = sum(one.nbytes for one in pixels) / 2
                require_room("spade", kept, len(normal), len(self._chains))
        self._gallery = _Gallery(np.stack(whole), tuple(pixels))

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Scores by eq. 2 and maps by eq. 3 with one neighbor per pixel; see `Method.predict`."""
        gallery = require_fitted(self._gallery, "spade")

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            whole, grids = self._embed(to_batch([image], self.image_size))
            squared = np.square(gallery.whole - whole[0]).sum(1)
            similar = np.argsort(squared, kind="stable")[: self.neighbors]
            queries = grids[0].reshape(-1, grids.shape[3])
            nearest = np.full(len(queries), np.inf, np.float32)
            for i in similar:
                if len(gallery.pixels[i]):
                    search = NearestSearch(gallery.pixels[i].astype(np.float32), lasting=False)
                    np.minimum(nearest, search(queries), out=nearest)
            # The root of eq. 3: the same order of patches, and distances add up when the map is smoothed.
            grid = np.sqrt(np.maximum(nearest, 0)).reshape(grids.shape[1:3])
            return float(squared[similar].mean()), smoothed(grid, self.image_size, self.sigma)

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_network": self._network, "_gallery": _Gallery}

    def model_bytes(self) -> int:
        """The backbone and all features."""
        gallery = require_fitted(self._gallery, "spade")
        return tensor_bytes(self._network) + gallery.whole.nbytes + sum(p.nbytes for p in gallery.pixels)

    def _embed(self, batch: torch.Tensor) -> tuple[Float32Array, Float32Array]:
        """(N, 3, S, S) in 0..1 -> (N, d) of the whole images and (N, h, w, D) of their positions, float32."""
        with torch.inference_mode():
            features = self._network(batch)
            pixels = joined(features).permute(0, 2, 3, 1)
            return features[-1].mean((2, 3)).numpy(), np.ascontiguousarray(pixels.numpy())


@dataclass(frozen=True, eq=False)
class _Gallery:
    """The good images and their views.

    Attributes:
        whole: (n, d) float32, one pooled feature per image.
        pixels: Per image (m, D) float16, the features of the positions that show it; float16 halves the memory.
    """

    whole: Float32Array
    pixels: tuple[npt.NDArray[np.float16], ...]
