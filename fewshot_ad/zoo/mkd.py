"""MKD: a small network learns to imitate a trained one on good parts; where it fails to, its gradient shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.shots import fitted
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, resized, seeded, standardize, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Predictions, baseline


class Cloner(nn.Module):
    """A plain network whose critical layers have the shapes of a backbone's stages.

    Args:
        channels: Of each stage.
        strides: Of each stage, powers of 2, ascending.
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
        """(N, 3, H, W) in 0..1 -> one (N, C, H / stride, W / stride) a stage."""
        x, features = standardize(batch), []
        for stage in self.stages:
            features.append(stage(x))
            x = F.relu(features[-1])
        return features


def discrepancy(source: Sequence[torch.Tensor], cloned: Sequence[torch.Tensor], direction: float) -> torch.Tensor:
    """L_total of each image: squared differences, and angles between the activation vectors, over the stages.

    Args:
        source: (N, C, h, w) a stage, of the source network.
        cloned: The same of the cloner.
        direction: lambda.

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


class MKD:
    """See `mkd` for the arguments.

    Source: Salehi et al. 2021: loss, eq. 1-3; localization by the gradient, smoothing and opening, section 3;
    SmoothGrad after Smilkov et al. 2017.
    """

    def __init__(
        self,
        seed: int,
        backbone: Backbone,
        image_size: int,
        width: int,
        steps: int,
        batch_size: int,
        learning_rate: float,
        direction: float,
        gradients: int,
        noise: float,
        sigma: float,
        opening: int,
    ) -> None:
        self._seed = seed
        self._source = backbone
        self._side = image_size
        self._width = width
        self._steps = steps
        self._batch_size = batch_size
        self._learning_rate = learning_rate
        self._direction = direction
        self._gradients = gradients
        self._noise = noise
        self._sigma = sigma
        self._element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (opening, opening))
        self._cloner: Cloner | None = None

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the cloner."""
        images = resized(normal, self._side)
        with seeded(self._seed) as generator, torch.inference_mode(False), torch.enable_grad():
            cloner = Cloner(self._source.channels, self._source.strides, self._width)
            optimizer = torch.optim.Adam(cloner.parameters(), self._learning_rate)
            # The source network is frozen and the images stay as they are.
            with torch.no_grad():
                wanted = [self._source(p[None].float() / 255) for p in images]
            order = torch.empty(0, dtype=torch.int64)
            for step in range(self._steps):
                if len(order) == 0:
                    order = torch.randperm(len(images), generator=generator)
                chosen, order = order[: self._batch_size], order[self._batch_size :]
                source = [torch.cat(stage) for stage in zip(*(wanted[i] for i in chosen.tolist()), strict=True)]
                loss = discrepancy(source, cloner(images[chosen].float() / 255), self._direction).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if progress is not None:
                    progress("training", step + 1, self._steps)
        self._cloner = cloner.requires_grad_(False).eval()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Scores: L_total. Maps: its gradient at each pixel, smoothed and opened."""
        cloner = fitted(self._cloner)

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            with torch.inference_mode(False), torch.enable_grad():
                batch = to_batch([image], self._side)
                score = float(discrepancy(self._source(batch), cloner(batch), self._direction))
                gradient = torch.zeros(self._side, self._side)
                generator = torch.Generator().manual_seed(self._seed)
                for _ in range(self._gradients):
                    shaken = batch
                    if self._gradients > 1:
                        shaken = batch + self._noise * torch.randn(batch.shape, generator=generator)
                    shaken = shaken.clone().requires_grad_()
                    loss = discrepancy(self._source(shaken), cloner(shaken), self._direction).sum()
                    gradient += torch.autograd.grad(loss, shaken)[0][0].abs().sum(0) / self._gradients
            heat = cv2.GaussianBlur(gradient.numpy(), (0, 0), self._sigma, borderType=cv2.BORDER_REFLECT_101)
            return score, cv2.morphologyEx(heat, cv2.MORPH_OPEN, self._element).astype(np.float32)

        return one_by_one(images, judge)

    def model_bytes(self) -> int:
        """Both networks."""
        return tensor_bytes(self._source, fitted(self._cloner))


@baseline(
    Card(
        name="mkd",
        title="Multiresolution Knowledge Distillation",
        paper="Salehi, Sadjadi, Baselizadeh, Rohban, Rabiee 2021, Multiresolution Knowledge Distillation for Anomaly "
        "Detection, CVPR",
        year=2021,
        family="teacher-student",
        supervision="good images",
        source="fewshot_ad",
        license="Apache-2.0",
        maps=True,
        needs_masks=False,
        needs_internet=True,
        trains=True,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, as the source network instead of "
        "ImageNet's VGG16; the cloner is a plain network of the same strides; a number of steps that suits a few "
        "images on a CPU instead of epochs, in batches of 16.",
    )
)
def mkd(
    *,
    seed: int = 0,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (1, 2, 3),
    image_size: int = 128,
    width: int = 32,
    steps: int = 500,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    direction: float = 2.0,
    gradients: int = 1,
    noise: float = 0.1,
    sigma: float = 4.0,
    opening: int = 3,
) -> MKD:
    """Multiresolution Knowledge Distillation.

    Args:
        seed: Of the cloner's first weights, the order of the images and the noise.
        backbone: The source network, see `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: The critical layers, see `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        width: Channels between the cloner's critical layers.
        steps: Training steps.
        batch_size: Images a step, at most.
        learning_rate: Adam's.
        direction: lambda, the weight of the angles. The authors' code weighs the distances by 0.5 and the angles by 1.
        gradients: 1 for the plain gradient; more for SmoothGrad, the mean over that many noisy copies.
        noise: Standard deviation of that noise, of values in 0..1.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.
        opening: Diameter of the ellipse the map is opened with, in pixels of the input.
    """
    if min(width, steps, batch_size, gradients, opening) < 1:
        raise ZooError(
            "mkd: expected width, steps, batch_size, gradients and opening of at least 1, got "
            f"{width}, {steps}, {batch_size}, {gradients} and {opening}."
        )
    if learning_rate <= 0 or sigma <= 0 or direction < 0 or noise < 0:
        raise ZooError(
            "mkd: expected learning_rate and sigma above 0, direction and noise of at least 0, got "
            f"{learning_rate}, {sigma}, {direction} and {noise}."
        )
    with seeded(seed):
        source = Backbone(backbone, stages, weights)
    return MKD(
        seed,
        source,
        image_size,
        width,
        steps,
        batch_size,
        learning_rate,
        direction,
        gradients,
        noise,
        sigma,
        opening,
    )
