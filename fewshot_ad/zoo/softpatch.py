"""SoftPatch: PatchCore for images that are not all good, whose most unusual patches are left out or count less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.search.memory_bank import MemoryBank, Origin, greedy_coreset
from fewshot_ad.zoo.components.patch_outliers import Discriminator, outlier_weights
from fewshot_ad.zoo.components.shots import embed_shots, patch_features, smoothed
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted


@baseline(
    Card(
        name="softpatch",
        title="SoftPatch",
        paper="Jiang, Liu, Wang, Nie, Wu, Liu, Wang, Zheng 2022, SoftPatch: Unsupervised Anomaly Detection with Noisy "
        "Data, NeurIPS",
        year=2022,
        family="memory bank",
        needs_internet=True,
        trains=False,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, instead of ImageNet's WideResNet50; "
        "256 pixels without the crop to 224; stages side by side without the pooling to 1024 dimensions.",
        original=Original(
            options={"backbone": "wide_resnet50_2"},
            pretrained="ImageNet",
            departs=(
                "the whole image, no center crop",
                "stages side by side, not pooled to 1,024 dimensions",
                "weights times distances, not times their squares as in the authors' code",
            ),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class SoftPatch:
    """SoftPatch: some of the images that it learns from may be defective.

    A patch is compared with those at the same position of the other images, so all have to show the part in one pose.

    Attributes:
        seed: Seed of the projections, and of the backbone with `weights="random"`.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        discriminator: What tells unusual patches, see `patch_outliers.outlier_weights`.
        neighbors: LOF-k, number of images that the local outlier factor compares with, at least 1. A kind of defect
            that more images than that show at one place passes for good.
        threshold: Share of the patches that is left out, the most unusual ones of all images; at least 0, below 1.
        soft_weights: Whether a distance counts times the outlier weight of the good patch that it is to.
        coreset_ratio: Size of the memory bank, as a share of all patches, in (0, 1].
        sigma: Standard deviation of the map's smoothing, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: Jiang et al. 2022: discriminators, coreset and weighted score. LOF-k after the authors' scripts; their code
    hands it on under a wrong name and so runs with 5.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stages: Sequence[int] = (2, 3)
    image_size: int = 256
    discriminator: Discriminator = "lof"
    neighbors: int = 6
    threshold: float = 0.15
    soft_weights: bool = True
    coreset_ratio: float = 0.1
    sigma: float = 4.0
    _network: Backbone = field(init=False, repr=False)
    _bank: MemoryBank | None = field(default=None, init=False, repr=False)
    _bank_weights: Float32Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.discriminator not in get_args(Discriminator):
            raise ZooError(
                f"softpatch: expected a discriminator among {get_args(Discriminator)}, got {self.discriminator!r}."
            )
        if self.neighbors < 1 or not 0 <= self.threshold < 1 or not 0 < self.coreset_ratio <= 1:
            raise ZooError(
                "softpatch: expected neighbors of at least 1, threshold in [0, 1) and coreset_ratio above 0 and at "
                f"most 1, got {self.neighbors}, {self.threshold} and {self.coreset_ratio}."
            )
        with seeded(self.seed):
            self._network = Backbone(self.backbone, self.stages, self.weights)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Fill the memory bank with the patches that are not unusual and thin it; see `Method.fit`."""
        features, _ = embed_shots("softpatch", normal, self.image_size, (), self._embed, progress)
        weights = outlier_weights(features, self.discriminator, self.neighbors, self.seed, progress).flatten().numpy()
        usual = np.flatnonzero(weights <= np.quantile(weights, 1 - self.threshold))
        pool = patches_of(features)[usual]
        rows = greedy_coreset(pool, max(1, round(self.coreset_ratio * len(weights))), self.seed, progress)
        kept = usual[rows]
        # A baseline is never asked for the place in the image that a bank vector comes from.
        image = (kept // (len(weights) // len(features))).astype(np.int32)
        origin = Origin(image, np.zeros(len(kept), np.int32), np.zeros((len(kept), 2), np.int32))
        self._bank, self._bank_weights = MemoryBank(pool[rows], origin, "l2"), weights[kept]

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Maps of weighted distances to the nearest patch; the score is the largest. See `Method.predict`."""
        bank, side = require_fitted(self._bank, "softpatch"), self.image_size

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            features = self._embed(to_batch([image], side))
            distances, nearest = bank.search(patches_of(features))
            scores = distances[:, 0]
            if self.soft_weights:
                scores = scores * self._bank_weights[nearest[:, 0]]
            return float(scores.max()), smoothed(scores.reshape(features.shape[2:]), side, self.sigma)

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_network": self._network, "_bank": None, "_bank_weights": None}

    def model_bytes(self) -> int:
        """The backbone and the memory bank with its weights."""
        bank = require_fitted(self._bank, "softpatch")
        return tensor_bytes(self._network) + bank.vectors.size * bank.stored_dtype.itemsize + self._bank_weights.nbytes

    def _embed(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in 0..1 -> (N, d, h, w)."""
        return patch_features(self._network, batch)


def patches_of(features: torch.Tensor) -> Float32Array:
    """Feature maps (n, d, h, w) -> (n * h * w, d) float32."""
    return np.ascontiguousarray(features.permute(0, 2, 3, 1).flatten(0, 2).numpy())
