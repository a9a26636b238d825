"""SimpleNet: a discriminator tells adapted features of good patches from the same features with Gaussian noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.shots import embed_shots, patch_features, smoothed
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import train_epochs
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

# Published learning rates of the adapter and of the discriminator.
ADAPTER_RATE, DISCRIMINATOR_RATE = 1e-4, 2e-4
WEIGHT_DECAY = 1e-5
SLOPE = 0.2
# The published noise suits the features of a WideResNet50. Among the distilled ResNet18's it is too small to be told
# from nothing: the training loss stays where it begins. This share of their root mean square is learned within the
# published number of epochs from a few images.
NOISE_SHARE = 0.2


@baseline(
    Card(
        name="simplenet",
        title="SimpleNet",
        paper="Liu, Zhou, Xu, Wang 2023, SimpleNet: A Simple Network for Image Anomaly Detection and Localization, "
        "CVPR",
        year=2023,
        family="synthetic anomalies",
        needs_internet=True,
        trains=True,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, instead of ImageNet's WideResNet50; "
        "288 pixels without the crop from 329; stages side by side without the pooling to 1536 dimensions; the network "
        "of the last epoch, where the authors' code keeps the epoch that is best on the test images; noise in "
        "proportion to the features, which differ in size from WideResNet50's.",
        original=Original(
            options={"backbone": "wide_resnet50_2", "noise": 0.015},
            pretrained="ImageNet",
            departs=(
                "the whole image, no center crop",
                "stages side by side, not pooled to 1,536 dimensions",
                "the last epoch, not the one that is best on the test images",
            ),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class SimpleNet:
    """SimpleNet.

    Attributes:
        seed: Seed of the networks' first weights, the order of the images and the noise.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        epochs: Passes over the images.
        batch_size: Images per step.
        noise: Standard deviation of the noise, in units of the features; None is a fifth of their root mean square.
        margin: th of eq. 7, for good features and for noisy ones.
        hidden: Width of the discriminator's hidden layer.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: Liu et al. 2023: local features, eq. 1-3; adapter, eq. 4; noise, eq. 5; truncated L1 loss, eq. 7; scores,
    section 3.6; settings, section 4.3. The width of the hidden layer is that of the authors' public configuration.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stages: Sequence[int] = (2, 3)
    image_size: int = 288
    epochs: int = 160
    batch_size: int = 4
    noise: float | None = None
    margin: float = 0.5
    hidden: int = 1024
    sigma: float = 4.0
    _network: Backbone = field(init=False, repr=False)
    _judge: Judge | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.hidden) < 1:
            raise ZooError(
                "simplenet: expected epochs, batch_size and hidden of at least 1, got "
                f"{self.epochs}, {self.batch_size} and {self.hidden}."
            )
        if (self.noise is not None and self.noise <= 0) or self.margin <= 0 or self.sigma < 0:
            raise ZooError(
                "simplenet: expected noise and margin above 0 and sigma of at least 0, got "
                f"{self.noise}, {self.margin} and {self.sigma}."
            )
        with seeded(self.seed):
            self._network = Backbone(self.backbone, self.stages, self.weights)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the adapter and the discriminator; see `Method.fit`."""
        # The backbone is frozen and no image is changed, so the features are computed once.
        features, _ = embed_shots("simplenet", normal, self.image_size, (), self._embed, progress)
        noise = NOISE_SHARE * float(features.square().mean().sqrt()) if self.noise is None else self.noise
        with seeded(self.seed) as generator, torch.inference_mode(False), torch.enable_grad():
            judge = Judge(features.shape[1], self.hidden)

            def loss(batch: torch.Tensor) -> torch.Tensor:
                good = judge.adapter(features[batch].permute(0, 2, 3, 1).flatten(0, 2))
                noisy = good + noise * torch.randn(good.shape, generator=generator)
                # Both together, so that they share the statistics of the batch normalization.
                scores = judge.discriminator(torch.cat([good, noisy]))[:, 0]
                return truncated_l1(scores[: len(good)], scores[len(good) :], self.margin)

            optimizers = [
                torch.optim.AdamW(judge.adapter.parameters(), ADAPTER_RATE),
                torch.optim.Adam(judge.discriminator.parameters(), DISCRIMINATOR_RATE, weight_decay=WEIGHT_DECAY),
            ]
            train_epochs(
                loss,
                lambda: torch.randperm(len(features), generator=generator).split(self.batch_size),
                self.epochs,
                optimizers,
                progress=progress,
            )
        self._judge = judge.requires_grad_(False).eval()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Maps of -D over the patches; the score is the largest before smoothing. See `Method.predict`."""
        judge = require_fitted(self._judge, "simplenet")

        def score(image: Uint8Array) -> tuple[float, Float32Array]:
            grid = judge(self._embed(to_batch([image], self.image_size)))[0].numpy()
            return float(np.max(grid)), smoothed(grid, self.image_size, self.sigma)

        return one_by_one(images, score)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_network": self._network, "_judge": Judge(sum(self._network.channels), self.hidden)}

    def model_bytes(self) -> int:
        """The backbone, the adapter and the discriminator."""
        return tensor_bytes(self._network, require_fitted(self._judge, "simplenet"))

    def _embed(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in 0..1 -> (N, C, h, w)."""
        return patch_features(self._network, batch)


class Judge(nn.Module):
    """The adapter, one linear layer, and the discriminator, two of them; both initialized as Glorot & Bengio 2010.

    Args:
        channels: Number of features.
        hidden: Width of the discriminator's hidden layer.

    Source: Liu et al. 2023, sections 3.2 and 3.4.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.adapter = nn.Linear(channels, channels)
        self.discriminator = nn.Sequential(
            nn.Linear(channels, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, 1, bias=False)
        )
        for layer in (self.adapter, *self.discriminator):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (N, C, h, w) -> -D of each patch, (N, h, w), higher for worse."""
        patches = features.permute(0, 2, 3, 1)
        scores = self.discriminator(self.adapter(patches.flatten(0, 2)))
        return -scores.view(patches.shape[:3])


def truncated_l1(good: torch.Tensor, noisy: torch.Tensor, margin: float) -> torch.Tensor:
    """Scores below `margin` of good features and above `-margin` of noisy ones, by how far; the mean of each.

    Args:
        good: (n,) outputs of the discriminator for good features.
        noisy: (m,) for noisy ones.
        margin: th.

    Source: Liu et al. 2023, eq. 6-7.
    """
    return (margin - good).clamp_min(0).mean() + (margin + noisy).clamp_min(0).mean()
