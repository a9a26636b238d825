"""PaDiM: a Gaussian of the features at each position of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.enrollment.views import ViewsSpec
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.gaussians import Gaussians
from fewshot_ad.zoo.components.shots import Chain, embed_shots, joined, read_views
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

# Published numbers of dimensions: of a WideResNet50, and of any other backbone.
WIDE_DIMS, DIMS = 550, 100


@baseline(
    Card(
        name="padim",
        title="PaDiM",
        paper="Defard, Setkov, Loesch, Audigier 2021, PaDiM: a Patch Distribution Modeling Framework for Anomaly "
        "Detection and Localization, ICPR Workshops",
        year=2021,
        family="distribution",
        needs_internet=True,
        trains=False,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, instead of ImageNet's ResNet18 and "
        "WideResNet50; 256 pixels without the crop to 224; stages joined bilinearly; views='none' as published.",
        original=Original(
            pretrained="ImageNet", departs=("the whole image, no center crop", "stages joined bilinearly")
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class PaDiM:
    """PaDiM.

    Attributes:
        seed: Seed of the choice of dimensions, and of the backbone with `weights="random"`.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        views: Views of each image besides itself, see `support.parse_views`.
        dims: Number of random dimensions that are kept; None keeps 550 of a WideResNet50 and 100 of any other.
        regularization: Added to the diagonal of the covariances, above 0.
        trim: Share of the images and views that is left out at each position before its Gaussian is estimated, those
            farthest from the median, see `gaussians.trimmed`; at least 0 and below 0.5, rounded down to whole images.
            0 is as published. More is this package's variant, for images of which a few may be defective: 0.125
            leaves out one of 8.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: Defard et al. 2021: embedding and random dimensions, section 3.1; Gaussians, eq. 1; distance, eq. 2. The
    idea of the trimmed estimate is that of Rousseeuw 1984 and Rousseeuw & Van Driessen 1999.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stages: Sequence[int] = (1, 2, 3)
    image_size: int = 256
    views: ViewsSpec = "none"
    dims: int | None = None
    regularization: float = 0.01
    trim: float = 0.0
    sigma: float = 4.0
    _network: Backbone = field(init=False, repr=False)
    _chains: tuple[Chain, ...] = field(init=False, repr=False)
    _kept_dims: torch.Tensor = field(init=False, repr=False)
    _gaussians: Gaussians | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.regularization <= 0:
            raise ZooError(f"padim: expected a regularization above 0, got {self.regularization}.")
        if not 0 <= self.trim < 0.5:
            raise ZooError(f"padim: expected trim of at least 0 and below 0.5, got {self.trim}.")
        if self.dims is not None and self.dims < 1:
            raise ZooError(f"padim: expected dims of at least 1, got {self.dims}.")
        with seeded(self.seed) as generator:
            self._network = Backbone(self.backbone, self.stages, self.weights)
        self._chains = read_views(self.views)
        published = WIDE_DIMS if self.backbone.startswith("wide_resnet50_2") else DIMS
        order = torch.randperm(sum(self._network.channels), generator=generator)
        self._kept_dims = order[: published if self.dims is None else self.dims].sort().values

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Estimate the Gaussians from the images and their views; see `Method.fit`."""
        features, shown = embed_shots("padim", normal, self.image_size, self._chains, self._embed, progress)
        self._gaussians = Gaussians.fit(features, shown, self.regularization, progress, self.trim)

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Maps of Mahalanobis distances; the score is the map's maximum. See `Method.predict`."""
        gaussians, side = require_fitted(self._gaussians, "padim"), self.image_size
        return one_by_one(
            images, lambda image: gaussians.judge(self._embed(to_batch([image], side))[0], side, self.sigma)
        )

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_network": self._network, "_kept_dims": None, "_gaussians": Gaussians}

    def model_bytes(self) -> int:
        """The backbone and the Gaussians."""
        gaussians = require_fitted(self._gaussians, "padim")
        return tensor_bytes(self._network, self._kept_dims, gaussians.mean, gaussians.W)

    def _embed(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in 0..1 -> (N, dims, h, w)."""
        with torch.no_grad():
            return joined(self._network(batch))[:, self._kept_dims]
