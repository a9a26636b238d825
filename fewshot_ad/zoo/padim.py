"""PaDiM: a Gaussian of the features at each position of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.enrollment.support import ViewsSpec
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.gaussians import Gaussians
from fewshot_ad.zoo.components.shots import Chain, fitted, joined, read_views, shots, shown_patches, smoothed
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Predictions, baseline

# Published numbers of dimensions.
WIDE_DIMS, DIMS = 550, 100


class PaDiM:
    """See `padim` for the arguments.

    Source: Defard et al. 2021: embedding and random dimensions, section 3.1; Gaussians, eq. 1; distance, eq. 2.
    """

    def __init__(
        self,
        seed: int,
        backbone: Backbone,
        image_size: int,
        views: tuple[Chain, ...],
        dims: int,
        regularization: float,
        sigma: float,
    ) -> None:
        self._backbone = backbone
        self._side = image_size
        self._views = views
        self._regularization = regularization
        self._sigma = sigma
        order = torch.randperm(sum(backbone.channels), generator=torch.Generator().manual_seed(seed))
        self._dims = order[:dims].sort().values
        self._gaussians: Gaussians | None = None

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Estimate the Gaussians from the images and their views."""
        features, shown = [], []
        for batch, masks in shots(normal, self._side, self._views, progress):
            features.append(self._embed(batch))
            shown.append(torch.from_numpy(shown_patches(masks, features[-1].shape[2:])))
        self._gaussians = Gaussians.fit(torch.cat(features), torch.cat(shown), self._regularization, progress)

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Maps of Mahalanobis distances; the score is the map's maximum."""
        gaussians = fitted(self._gaussians)

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            grid = gaussians.distances(self._embed(to_batch([image], self._side))[0])
            heat = smoothed(grid.numpy(), self._side, self._sigma)
            return float(heat.max()), heat

        return one_by_one(images, judge)

    def model_bytes(self) -> int:
        """The backbone and the Gaussians."""
        gaussians = fitted(self._gaussians)
        return tensor_bytes(self._backbone, self._dims, gaussians.mean, gaussians.W)

    def _embed(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in 0..1 -> (N, dims, h, w)."""
        with torch.no_grad():
            return joined(self._backbone(batch))[:, self._dims]


@baseline(
    Card(
        name="padim",
        title="PaDiM",
        paper="Defard, Setkov, Loesch, Audigier 2021, PaDiM: a Patch Distribution Modeling Framework for Anomaly "
        "Detection and Localization, ICPR Workshops",
        year=2021,
        family="distribution",
        supervision="good images",
        source="fewshot_ad",
        license="Apache-2.0",
        maps=True,
        needs_masks=False,
        needs_internet=True,
        trains=False,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, instead of ImageNet's ResNet18 and "
        "WideResNet50; 256 pixels without the crop to 224; stages joined bilinearly; views='none' as published.",
    )
)
def padim(
    *,
    seed: int = 0,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (1, 2, 3),
    image_size: int = 256,
    views: ViewsSpec = "none",
    dims: int | None = None,
    regularization: float = 0.01,
    sigma: float = 4.0,
) -> PaDiM:
    """PaDiM.

    Args:
        seed: Of the choice of dimensions.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        views: Views of each image besides itself, see `support.parse_views`.
        dims: Dimensions that are kept; None takes 550 of a WideResNet50 and 100 of any other.
        regularization: Added to the diagonal of the covariances.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.
    """
    if regularization <= 0:
        raise ZooError(f"padim: expected a regularization above 0, got {regularization}.")
    if dims is not None and dims < 1:
        raise ZooError(f"padim: expected dims of at least 1, got {dims}.")
    if dims is None:
        dims = WIDE_DIMS if backbone.startswith("wide_resnet50_2") else DIMS
    with seeded(seed):
        network = Backbone(backbone, stages, weights)
    return PaDiM(seed, network, image_size, read_views(views), dims, regularization, sigma)
