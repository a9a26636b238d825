"""DifferNet: a normalizing flow over the pooled features of the whole image at three scales.

An image that the flow finds unlikely is anomalous. The likelihood is of the image as a whole; the map is the gradient
of the likelihood with respect to the pixels.

Source: Rudolph, Wandt & Rosenhahn 2021, Same Same But DifferNet (WACV).
"""

from __future__ import annotations

import itertools
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
from fewshot_ad.zoo.components.coupling import Flow, surprise
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import train_epochs
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

SCALES = 3
CLAMP = 3.0
META_EPOCHS, SUB_EPOCHS = 24, 8
RATE, BETAS, EPSILON, WEIGHT_DECAY = 2e-4, (0.8, 0.8), 1e-4, 1e-5
TRAINING_TRANSFORMS = 4
# Images per step, each under all its training transformations.
BATCH = 24
CHUNK = 8
# Smoothing of the gradient, in pixels of the largest scale.
SIGMA = 3.0


@baseline(
    Card(
        name="differnet",
        title="DifferNet",
        paper="Rudolph, Wandt & Rosenhahn 2021, Same Same But DifferNet: Semi-Supervised Defect Detection with "
        "Normalizing Flows, WACV",
        year=2021,
        family="normalizing flow",
        needs_internet=True,
        trains=True,
        weights="layer3 of resnet18 (distilled by this package), 256 channels as the last stage of AlexNet, which the "
        "paper uses with ImageNet's weights.",
        original=Original(pretrained="ImageNet", departs=("layer3 of a ResNet18, not AlexNet",)),
    )
)
@dataclass(kw_only=True, eq=False)
class DifferNet:
    """DifferNet with the published hyper-parameters.

    Attributes:
        seed: Seed of everything random.
        image_size: Side of the largest of the three scales, in pixels, at least 64.
        epochs: Passes over the images, each under four new transformations.
        transforms: Transformations under which an image is judged.
        rotation: Largest angle of a transformation, in degrees either way, 0..180.
        light: Largest change of contrast and of brightness, as a share in [0, 1).
        blocks: Number of coupling blocks.
        hidden: Width of their hidden layers.
        backbone: See `tensors.Backbone`; its stage at stride 16 is used.
        weights: See `tensors.Backbone`.

    Raises:
        ZooError: A setting makes no sense.
    """

    seed: int = 0
    image_size: int = 448
    epochs: int = META_EPOCHS * SUB_EPOCHS
    transforms: int = 64
    rotation: float = 180.0
    light: float = 0.15
    blocks: int = 8
    hidden: int = 2048
    backbone: str = "resnet18"
    weights: str | None = None
    _density: _Density | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.image_size < 64:
            raise ZooError(f"differnet: expected image_size of at least 64, got {self.image_size}.")
        if min(self.epochs, self.transforms, self.blocks, self.hidden) < 1:
            raise ZooError(
                f"differnet: expected epochs, transforms, blocks and hidden of at least 1, got {self.epochs}, "
                f"{self.transforms}, {self.blocks} and {self.hidden}."
            )
        if not (0 <= self.rotation <= 180 and 0 <= self.light < 1):
            raise ZooError(
                f"differnet: expected rotation in 0..180 degrees and light in [0, 1), got {self.rotation} and "
                f"{self.light}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Maximize the likelihood of the good images' features; see `Method.fit`."""
        images = resized(normal, self.image_size)
        with seeded(self.seed) as generator:
            backbone = Backbone(self.backbone, (3,), self.weights)
            flow = pooled_flow(SCALES * backbone.channels[0], self.hidden, self.blocks, generator)
            # Every image is judged under the same transformations, as if it came alone.
            density = _Density(backbone, flow, self._draw(self.transforms, generator))
            optimizer = torch.optim.Adam(flow.parameters(), RATE, BETAS, EPSILON, weight_decay=WEIGHT_DECAY)

            def batches() -> Sequence[torch.Tensor]:
                return torch.randperm(len(images), generator=generator).split(BATCH)

            def loss(batch: torch.Tensor) -> torch.Tensor:
                """Under several new transformations of each image."""
                copies = images[batch].repeat_interleave(TRAINING_TRANSFORMS, 0)
                features = density.transformed_features(copies, self._draw(len(copies), generator))
                return surprise(*flow(features)).mean() / features.shape[1]

            train_epochs(loss, batches, self.epochs, [optimizer], progress=progress)
        flow.requires_grad_(False).eval()
        self._density = density

    def _draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Random settings of `transformed`, (count, 3)."""
        reach = torch.tensor([math.radians(self.rotation), self.light, self.light])
        return (2 * torch.rand(count, 3, generator=generator) - 1) * reach + torch.tensor([0.0, 1.0, 1.0])

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = mean negative log-likelihood of the latent variables over the transformations.

        See `Method.predict`. Source: equation 6; section 3.4 for the maps.
        """
        density = require_fitted(self._density, "differnet")
        return one_by_one(images, lambda image: density.judge(image, self.image_size))

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        backbone = Backbone(self.backbone, (3,), self.weights)
        flow = pooled_flow(SCALES * backbone.channels[0], self.hidden, self.blocks, torch.Generator())
        return {"_density": _Density(backbone, flow, torch.empty(0))}

    def model_bytes(self) -> int:
        """The backbone, the flow and the transformations."""
        density = require_fitted(self._density, "differnet")
        return tensor_bytes(density.backbone, density.flow, density.settings)


@dataclass(frozen=True, eq=False)
class _Density:
    """The likelihood of an image: a flow over the features of a backbone.

    Attributes:
        backbone: Frozen, with one stage.
        flow: Density of the features.
        settings: (transforms, 3), the transformations of an inspection; see `transformed`.
    """

    backbone: Backbone
    flow: Flow
    settings: torch.Tensor

    def judge(self, image: Uint8Array, side: int) -> tuple[float, Float32Array]:
        """Score and map (side, side) float32 of one image (H, W, 3) uint8 RGB."""
        squares, heat = 0.0, np.zeros((side, side), np.float32)
        # The map is a gradient, which inference mode does not record.
        with torch.inference_mode(False), torch.enable_grad():
            upright = to_batch([image], side)
            for settings in self.settings.split(CHUNK):
                # Differentiated with respect to the image before it is turned, so the gradient is upright.
                copies = upright.repeat(len(settings), 1, 1, 1).requires_grad_()
                latent, log_determinant = self.flow(self.features(transformed(copies, settings)))
                (gradient,) = torch.autograd.grad(surprise(latent, log_determinant).sum() / latent.shape[1], copies)
                squares += float(latent.detach().square().mean(1).sum())
                for channels in gradient.permute(0, 2, 3, 1).numpy():
                    heat += np.abs(cv2.GaussianBlur(channels, (0, 0), SIGMA)).sum(2)
        return squares / (2 * len(self.settings)), heat / np.float32(len(self.settings))

    def transformed_features(self, images: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) uint8 and settings (N, 3) -> features (N, 3 C) of the transformed images."""
        with torch.no_grad():
            parts = [
                self.features(transformed(chunk.float() / 255, chunk_settings))
                for chunk, chunk_settings in zip(images.split(CHUNK), settings.split(CHUNK), strict=True)
            ]
        return torch.cat(parts)

    def features(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) -> (N, 3 C): pooled over the image at full, half and quarter size. Source: section 3.1."""
        pooled = []
        for scale in range(SCALES):
            side = batch.shape[-1] // 2**scale
            smaller = batch
            if scale > 0:
                smaller = F.interpolate(batch, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
            pooled.append(self.backbone(smaller)[0].mean((2, 3)))
        return torch.cat(pooled, 1)


def pooled_flow(channels: int, hidden: int, blocks: int, generator: torch.Generator) -> Flow:
    """A flow over vectors whose inner networks have three hidden layers of `hidden` units."""

    def inner(inputs: int, outputs: int) -> nn.Module:
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((inputs, hidden, hidden, hidden)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(hidden, outputs))

    return Flow(channels, [inner] * blocks, generator, CLAMP)


def transformed(batch: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    """Turn images and change their contrast and brightness.

    Args:
        batch: (N, 3, H, W) in 0..1, H = W.
        settings: (N, 3): angle in radians, factor of contrast, factor of brightness. Pixels from outside are black.

    Returns:
        The same shape; differentiable, and so not clipped to 0..1.
    """
    angle, contrast, brightness = settings.unbind(1)
    zero = torch.zeros_like(angle)
    rows = (torch.stack([angle.cos(), -angle.sin(), zero], 1), torch.stack([angle.sin(), angle.cos(), zero], 1))
    grid = F.affine_grid(torch.stack(rows, 1), list(batch.shape), align_corners=False)
    turned = F.grid_sample(batch, grid, align_corners=False)
    mean = turned.mean((1, 2, 3), keepdim=True)
    return (mean + contrast.view(-1, 1, 1, 1) * (turned - mean)) * brightness.view(-1, 1, 1, 1)
