"""MKD: a small network learns to imitate a trained one on good parts; a large gradient marks where it fails to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, resized, seeded, standardize, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import shuffled_batches, train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted


@baseline(
    Card(
        name="mkd",
        title="Multiresolution Knowledge Distillation",
        paper="Salehi, Sadjadi, Baselizadeh, Rohban, Rabiee 2021, Multiresolution Knowledge Distillation for Anomaly "
        "Detection, CVPR",
        year=2021,
        family="teacher-student",
        needs_internet=True,
        trains=True,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, as the source network instead of "
        "ImageNet's VGG16; the cloner is a plain network of the same strides; a number of steps that suits a few "
        "images on a CPU instead of epochs, in batches of 16.",
        original=Original(
            pretrained="ImageNet",
            lengths={"steps": "epochs"},
            departs=(
                "a ResNet18 as the source, not VGG16",
                "a plain cloner of the same strides",
            ),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class MKD:
    """Multiresolution Knowledge Distillation.

    Attributes:
        seed: Seed of the cloner's first weights, the order of the images and the noise.
        backbone: The source network, see `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: The critical layers, see `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        width: Channels between the cloner's critical layers.
        steps: Training steps.
        batch_size: Images per step, at most.
        learning_rate: Adam's learning rate.
        direction: lambda, the weight of the angles. The authors' code weighs the distances by 0.5 and the angles by 1.
        gradients: 1 for the plain gradient; more for SmoothGrad, the mean over that many noisy copies.
        noise: Standard deviation of that noise, of values in 0..1.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.
        opening: Diameter of the ellipse with which the map is opened, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: Salehi et al. 2021: loss, eq. 1-3; localization by the gradient, smoothing and opening, section 3;
    SmoothGrad after Smilkov et al. 2017.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stages: Sequence[int] = (1, 2, 3)
    image_size: int = 128
    width: int = 32
    steps: int = 500
    batch_size: int = 16
    learning_rate: float = 1e-3
    direction: float = 2.0
    gradients: int = 1
    noise: float = 0.1
    sigma: float = 4.0
    opening: int = 3
    _source: Backbone = field(init=False, repr=False)
    _cloner: Cloner | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.width, self.steps, self.batch_size, self.gradients, self.opening) < 1:
            raise ZooError(
                "mkd: expected width, steps, batch_size, gradients and opening of at least 1, got "
                f"{self.width}, {self.steps}, {self.batch_size}, {self.gradients} and {self.opening}."
            )
        if self.learning_rate <= 0 or self.sigma <= 0 or self.direction < 0 or self.noise < 0:
            raise ZooError(
                "mkd: expected learning_rate and sigma above 0, direction and noise of at least 0, got "
                f"{self.learning_rate}, {self.sigma}, {self.direction} and {self.noise}."
            )
        with seeded(self.seed):
            self._source = Backbone(self.backbone, self.stages, self.weights)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the cloner; see `Method.fit`."""
        images = resized(normal, self.image_size)
        with seeded(self.seed) as generator, torch.inference_mode(False), torch.enable_grad():
            cloner = Cloner(self._source.channels, self._source.strides, self.width)
            # The source network is frozen, so its features of each image are computed once.
            with torch.no_grad():
                targets = [self._source(image[None].float() / 255) for image in images]
            batches = shuffled_batches(len(images), self.batch_size, generator)

            def loss() -> torch.Tensor:
                batch = next(batches)
                source = [torch.cat(stage) for stage in zip(*(targets[i] for i in batch.tolist()), strict=True)]
                return discrepancy(source, cloner(images[batch].float() / 255), self.direction).mean()

            optimizer = torch.optim.Adam(cloner.parameters(), self.learning_rate)
            train_steps(loss, self.steps, [optimizer], progress=progress)
        self._cloner = cloner.requires_grad_(False).eval()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = L_total; the map is its gradient at each pixel, smoothed and opened. See `Method.predict`."""
        cloner = require_fitted(self._cloner, "mkd")
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (self.opening, self.opening))

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            with torch.inference_mode(False), torch.enable_grad():
                batch = to_batch([image], self.image_size)
                score = float(discrepancy(self._source(batch), cloner(batch), self.direction))
                gradient = self._gradient(cloner, batch)
            heat = cv2.GaussianBlur(gradient.numpy(), (0, 0), self.sigma, borderType=cv2.BORDER_REFLECT_101)
            return score, cv2.morphologyEx(heat, cv2.MORPH_OPEN, ellipse).astype(np.float32)

        return one_by_one(images, judge)

    def _gradient(self, cloner: Cloner, batch: torch.Tensor) -> torch.Tensor:
        """Magnitude of the loss's gradient at each pixel of one image (1, 3, S, S): (S, S), the sum over colors."""
        gradient = torch.zeros(batch.shape[2:])
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.gradients):
            copy = batch.clone()
            if self.gradients > 1:
                copy += self.noise * torch.randn(batch.shape, generator=generator)
            copy.requires_grad_()
            loss = discrepancy(self._source(copy), cloner(copy), self.direction).sum()
            gradient += torch.autograd.grad(loss, copy)[0][0].abs().sum(0) / self.gradients
        return gradient

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        cloner = Cloner(self._source.channels, self._source.strides, self.width)
        return {"_source": self._source, "_cloner": cloner}

    def model_bytes(self) -> int:
        """Both networks."""
        return tensor_bytes(self._source, require_fitted(self._cloner, "mkd"))


class Cloner(nn.Module):
    """A plain network whose critical layers have the shapes of a backbone's stages.

    Args:
        channels: Number of channels, per stage.
        strides: Strides in pixels, per stage: powers of 2, ascending.
        width: Channels of the layers in between.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        inputs, reached = 3, 1
        for count, stride in zip(channels, strides, strict=True):
            layers: list[nn.Module] = []
            for halve in [2] * round(math.log2(stride / reached)) + [1]:
                layers += [nn.Conv2d(inputs, width, 3, halve, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            # No activation behind the critical layer: some backbones' stages are negative in places.
            self.stages.append(nn.Sequential(*layers, nn.Conv2d(width, count, 3, padding=1)))
            inputs, reached = count, stride

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) in 0..1 -> one (N, C, H / stride, W / stride) per stage."""
        x, features = standardize(batch), []
        for stage in self.stages:
            features.append(stage(x))
            x = F.relu(features[-1])
        return features


def discrepancy(source: Sequence[torch.Tensor], cloned: Sequence[torch.Tensor], direction: float) -> torch.Tensor:
    """L_total of each image: squared differences, and angles between the activation vectors, over the stages.

    Args:
        source: (N, C, h, w) per stage, feature maps of the source network.
        cloned: Those of the cloner.
        direction: lambda, the weight of the angles.

    Returns:
        (N,).

    Source: Salehi et al. 2021, eq. 1-3.
    """
    total = torch.zeros(len(source[0]))
    for s, c in zip(source, cloned, strict=True):
        value = (s - c).square().mean((1, 2, 3))
        angle = 1 - F.cosine_similarity(s.flatten(1), c.flatten(1), dim=1)
        total = total + value + direction * angle
    return total
