"""FastRecon: an image's features, reconstructed from those of a few good images by a regression in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.search.memory_bank import greedy_coreset
from fewshot_ad.zoo.components.shots import embed_shots, patch_features, smoothed
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted


@baseline(
    Card(
        name="fastrecon",
        title="FastRecon",
        paper="Fang, Wang, Li, Liu, Hu, Xiao 2023, FastRecon: Few-shot Industrial Anomaly Detection via Fast Feature "
        "Reconstruction, ICCV",
        year=2023,
        family="reconstruction",
        needs_internet=True,
        trains=False,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, instead of ImageNet's WideResNet50; "
        "256 pixels without the crop to 224; stages joined bilinearly.",
        original=Original(
            options={"backbone": "wide_resnet50_2"},
            pretrained="ImageNet",
            departs=("the whole image, no center crop", "stages joined bilinearly"),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class FastRecon:
    """FastRecon.

    With Q the features of an image at its positions, S a coreset of those of the good images, and M the mean of these
    at each position, W minimizes |Q - W S|^2 + lambda |W S - M|^2. That is W S = (Q + lambda M) P / (1 + lambda), where
    P = S' inv(S S') S projects onto the rows of S, of which an orthonormal basis is all that has to be kept.

    Attributes:
        seed: Seed of the coreset's projection, and of the backbone with `weights="random"`.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        coreset_ratio: Share of the patches in S, in (0, 1]. With as many as a patch has dimensions, everything can be
            reconstructed and only the distance to M is left.
        regularization: lambda, at least 0: how much the reconstruction is drawn to the mean of the good images.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: Fang et al. 2023: coreset and regression with distribution regularization; its closed form, lambda and the
    share of the patches from the authors' code.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stages: Sequence[int] = (2, 3)
    image_size: int = 256
    coreset_ratio: float = 0.01
    regularization: float = 2.0
    sigma: float = 4.0
    _network: Backbone = field(init=False, repr=False)
    _support: Support | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.coreset_ratio <= 1:
            raise ZooError(f"fastrecon: expected coreset_ratio above 0 and at most 1, got {self.coreset_ratio}.")
        if self.regularization < 0:
            raise ZooError(f"fastrecon: expected a regularization of at least 0, got {self.regularization}.")
        with seeded(self.seed):
            self._network = Backbone(self.backbone, self.stages, self.weights)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Choose the coreset and average the images; see `Method.fit`."""
        features, _ = embed_shots("fastrecon", normal, self.image_size, (), self._embed, progress)
        patches = features.permute(0, 2, 3, 1).flatten(0, 2)
        budget = max(1, round(self.coreset_ratio * len(patches)))
        coreset = greedy_coreset(np.ascontiguousarray(patches.numpy()), budget, self.seed, progress)
        self._support = Support.of(patches[coreset], features.mean(0).flatten(1).T)

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Maps of the distance to the reconstruction; the score is the largest. See `Method.predict`."""
        support, side = require_fitted(self._support, "fastrecon"), self.image_size

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            features = self._embed(to_batch([image], side))[0]
            patches = features.flatten(1).T
            distances = (patches - support.reconstruct(patches, self.regularization)).norm(dim=1)
            return float(distances.max()), smoothed(distances.view(features.shape[1:]).numpy(), side, self.sigma)

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_network": self._network, "_support": Support}

    def model_bytes(self) -> int:
        """The backbone, the basis and the mean."""
        support = require_fitted(self._support, "fastrecon")
        return tensor_bytes(self._network, support.basis, support.mean)

    def _embed(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in 0..1 -> (N, d, h, w)."""
        return patch_features(self._network, batch)


@dataclass(frozen=True, eq=False)
class Support:
    """What the good images leave behind.

    Attributes:
        basis: (r, d) float32, an orthonormal basis of the coreset's patches.
        mean: (h * w, d) float32, M.
    """

    basis: torch.Tensor
    mean: torch.Tensor

    @classmethod
    def of(cls, coreset: torch.Tensor, mean: torch.Tensor) -> Support:
        """From S (m, d), whose rows may depend on each other, and M."""
        _, lengths, rows = torch.linalg.svd(coreset.double(), full_matrices=False)
        # Shorter ones are rounding errors of the float32 features.
        independent = lengths > lengths[0] * max(coreset.shape) * torch.finfo(torch.float32).eps
        return cls(rows[independent].float(), mean.contiguous())

    def reconstruct(self, patches: torch.Tensor, regularization: float) -> torch.Tensor:
        """W S of Q (h * w, d)."""
        target = (patches + regularization * self.mean) / (1 + regularization)
        return target @ self.basis.T @ self.basis
