"""PatchCore from a few images: the nearest good patch in a thinned memory bank, with views of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.enrollment.views import ViewsSpec
from fewshot_ad.errors import ZooError
from fewshot_ad.scoring import reweighted
from fewshot_ad.search.memory_bank import MemoryBank, Origin, greedy_coreset
from fewshot_ad.zoo.components.memory import require_room
from fewshot_ad.zoo.components.patch_outliers import like_others
from fewshot_ad.zoo.components.shots import Chain, patch_features, read_views, shots, shown_patches, smoothed
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted


@baseline(
    Card(
        name="patchcore",
        title="PatchCore (few-shot, with views)",
        paper="Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler 2022, Towards Total Recall in Industrial Anomaly "
        "Detection, CVPR",
        year=2022,
        family="memory bank",
        needs_internet=True,
        trains=False,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, instead of ImageNet's WideResNet50; "
        "256 pixels without the crop to 224; stages side by side without the pooling to 1024 dimensions; each "
        "image is entered with views, which views='none' leaves out as published.",
        original=Original(
            options={"backbone": "wide_resnet50_2", "views": "none"},
            pretrained="ImageNet",
            departs=("the whole image, no center crop", "stages side by side, not pooled to 1,024 dimensions"),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class PatchCore:
    """PatchCore.

    Attributes:
        seed: Seed of the coreset's projection, and of the backbone with `weights="random"`.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        views: Views of each image besides itself, see `support.parse_views`.
        coreset_ratio: Share of the patches that is kept, in (0, 1].
        neighbors: b of eq. 7, at least 2.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.
        trim: Share of the patches that is left out before the bank is thinned, in [0, 0.5]: those least like the other
            images, among which those of a defect are that nobody noticed.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: Roth et al. 2022: locally aware patch features, section 3.1; greedy coreset, algorithm 1; scores, eq. 6-7.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stages: Sequence[int] = (2, 3)
    image_size: int = 256
    views: ViewsSpec = "hflip,vflip,rotate=180"
    coreset_ratio: float = 0.1
    neighbors: int = 9
    sigma: float = 4.0
    trim: float = 0.0
    _network: Backbone = field(init=False, repr=False)
    _chains: tuple[Chain, ...] = field(init=False, repr=False)
    _bank: MemoryBank | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.coreset_ratio <= 1:
            raise ZooError(f"patchcore: expected coreset_ratio above 0 and at most 1, got {self.coreset_ratio}.")
        if self.neighbors < 2:
            raise ZooError(f"patchcore: expected neighbors of at least 2, got {self.neighbors}.")
        if not 0 <= self.trim <= 0.5:
            raise ZooError(f"patchcore: expected trim in 0..0.5, got {self.trim}.")
        with seeded(self.seed):
            self._network = Backbone(self.backbone, self.stages, self.weights)
        self._chains = read_views(self.views)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Fill the memory bank with the patches of all views and thin it; see `Method.fit`."""
        pools: list[Float32Array] = []
        images, views = [], []
        for i, (batch, masks) in enumerate(shots(normal, self.image_size, self._chains, progress)):
            grids = self._embed(batch)
            keep = shown_patches(masks, grids.shape[1:3])
            pools.append(grids[keep])
            if not i:
                require_room("patchcore", pools[0].nbytes, len(normal), len(self._chains))
            view = np.nonzero(keep)[0]
            images.append(np.full(len(view), i, np.int32))
            views.append(view.astype(np.int32))
        pool, image_of, view_of = np.concatenate(pools), np.concatenate(images), np.concatenate(views)
        if self.trim:
            kept = like_others(pool, image_of, view_of, self.trim)
            pool, image_of, view_of = pool[kept], image_of[kept], view_of[kept]
        rows = greedy_coreset(pool, max(1, round(self.coreset_ratio * len(pool))), self.seed, progress)
        # A baseline is never asked for the place in the image that a bank vector comes from.
        nowhere = np.zeros((len(rows), 2), np.int32)
        origin = Origin(image_of[rows], view_of[rows], nowhere)
        self._bank = MemoryBank(pool[rows], origin, "l2")

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Scores by eq. 7 and maps by eq. 6; see `Method.predict`."""
        bank = require_fitted(self._bank, "patchcore")

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            grid = self._embed(to_batch([image], self.image_size))[0]
            patches = grid.reshape(-1, grid.shape[2])
            distances = bank.nearest(patches)
            score = reweighted(patches[int(np.argmax(distances))], bank, 1.0, self.neighbors)
            return score, smoothed(distances.reshape(grid.shape[:2]), self.image_size, self.sigma)

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_network": self._network, "_bank": None}

    def model_bytes(self) -> int:
        """The backbone and the memory bank."""
        bank = require_fitted(self._bank, "patchcore")
        return tensor_bytes(self._network) + bank.vectors.size * bank.stored_dtype.itemsize

    def _embed(self, batch: torch.Tensor) -> Float32Array:
        """(N, 3, S, S) in 0..1 -> (N, h, w, d) float32."""
        return np.ascontiguousarray(patch_features(self._network, batch).permute(0, 2, 3, 1).numpy())
