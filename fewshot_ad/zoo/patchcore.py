"""PatchCore from a few images: the nearest good patch in a thinned memory bank, with views of each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.encoder.pyramid import local_average
from fewshot_ad.enrollment.support import ViewsSpec
from fewshot_ad.errors import ZooError
from fewshot_ad.scoring import reweighted
from fewshot_ad.search.memory_bank import MemoryBank, Origin, greedy_coreset
from fewshot_ad.zoo.components.shots import Chain, fitted, joined, read_views, shots, shown_patches, smoothed
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Predictions, baseline


class PatchCore:
    """See `patchcore` for the arguments.

    Source: Roth et al. 2022: locally aware patch features, section 3.1; greedy coreset, algorithm 1; scores, eq. 6-7.
    """

    def __init__(
        self,
        seed: int,
        backbone: Backbone,
        image_size: int,
        views: tuple[Chain, ...],
        coreset_ratio: float,
        neighbors: int,
        sigma: float,
    ) -> None:
        self._seed = seed
        self._backbone = backbone
        self._side = image_size
        self._views = views
        self._ratio = coreset_ratio
        self._neighbors = neighbors
        self._sigma = sigma
        self._bank: MemoryBank | None = None

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Fill the memory bank with the patches of all views and thin it."""
        pools: list[Float32Array] = []
        images, views = [], []
        for i, (batch, masks) in enumerate(shots(normal, self._side, self._views, progress)):
            grids = self._embed(batch)
            keep = shown_patches(masks, grids.shape[1:3])
            pools.append(grids[keep])
            view = np.nonzero(keep)[0]
            images.append(np.full(len(view), i, np.int32))
            views.append(view.astype(np.int32))
        pool = np.concatenate(pools)
        picked = greedy_coreset(pool, max(1, round(self._ratio * len(pool))), self._seed, progress)
        # Nobody asks a baseline where a bank vector was seen.
        nowhere = np.zeros((len(picked), 2), np.int32)
        origin = Origin(np.concatenate(images)[picked], np.concatenate(views)[picked], nowhere)
        self._bank = MemoryBank(pool[picked], origin, "l2")

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Scores by eq. 7 and maps by eq. 6."""
        bank = fitted(self._bank)

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            grid = self._embed(to_batch([image], self._side))[0]
            patches = grid.reshape(-1, grid.shape[2])
            distances = bank.nearest(patches)
            score = reweighted(patches[int(np.argmax(distances))], bank, 1.0, self._neighbors)
            return score, smoothed(distances.reshape(grid.shape[:2]), self._side, self._sigma)

        return one_by_one(images, judge)

    def model_bytes(self) -> int:
        """The backbone and the memory bank."""
        bank = fitted(self._bank)
        return tensor_bytes(self._backbone) + bank.vectors.size * bank.stored_dtype.itemsize

    def _embed(self, batch: torch.Tensor) -> Float32Array:
        """(N, 3, S, S) in 0..1 -> (N, h, w, d) float32."""
        with torch.inference_mode():
            features = joined([local_average(f) for f in self._backbone(batch)])
            return np.ascontiguousarray(features.permute(0, 2, 3, 1).numpy())


@baseline(
    Card(
        name="patchcore",
        title="PatchCore (few-shot, with views)",
        paper="Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler 2022, Towards Total Recall in Industrial Anomaly "
        "Detection, CVPR",
        year=2022,
        family="memory bank",
        supervision="good images",
        source="fewshot_ad",
        license="Apache-2.0",
        maps=True,
        needs_masks=False,
        needs_internet=True,
        trains=False,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, instead of ImageNet's WideResNet50; "
        "256 pixels without the crop to 224; stages side by side without the pooling to 1024 dimensions; each "
        "image is entered with views, which views='none' leaves out as published.",
    )
)
def patchcore(
    *,
    seed: int = 0,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (2, 3),
    image_size: int = 256,
    views: ViewsSpec = "hflip,vflip,rotate=180",
    coreset_ratio: float = 0.1,
    neighbors: int = 9,
    sigma: float = 4.0,
) -> PatchCore:
    """PatchCore.

    Args:
        seed: Of the coreset's projection.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        views: Views of each image besides itself, see `support.parse_views`.
        coreset_ratio: Share of the patches that is kept, 0..1.
        neighbors: b of eq. 7.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.
    """
    if not 0 < coreset_ratio <= 1:
        raise ZooError(f"patchcore: expected coreset_ratio above 0 and at most 1, got {coreset_ratio}.")
    if neighbors < 2:
        raise ZooError(f"patchcore: expected neighbors of at least 2, got {neighbors}.")
    with seeded(seed):
        network = Backbone(backbone, stages, weights)
    return PatchCore(seed, network, image_size, read_views(views), coreset_ratio, neighbors, sigma)
