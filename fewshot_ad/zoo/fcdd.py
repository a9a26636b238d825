"""FCDD: a fully convolutional one-class classifier, whose output is the map of anomalies.

Good images are to map to zero at every position, and good images with synthetic anomalies, confetti, are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.confetti import malformed
from fewshot_ad.zoo.components.image_jitter import recolored
from fewshot_ad.zoo.components.tensors import (
    Backbone,
    one_by_one,
    resized,
    seeded,
    tensor_bytes,
    to_batch,
    unit_tensor,
)
from fewshot_ad.zoo.components.training import train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

# Pixels between the positions of the map, as in the published network.
STRIDE = 8
# Receptive field of a position in the published network, in pixels: the size of the Gaussian that stands for it. A
# ResNet18 looks wider, but beyond this the Gaussian is next to nothing.
RECEPTIVE_FIELD = 62
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
# The learning rate at the end of the published training, as a share of the first: 200 epochs, 1.5 percent less each.
LAST_RATE = 0.985**200
# Training images are this much larger, and half of them are cropped instead of resized.
ENLARGED = 240 / 224
# Largest change of brightness, contrast, saturation and hue, for half of the images; the others keep their colors.
JITTER = 0.04
# Of the white noise that half of the images get: standard deviation, as a share of the image's own.
WHITE = 0.1
TINY = 1e-31


@baseline(
    Card(
        name="fcdd",
        title="FCDD",
        paper="Liznerski, Ruff, Vandermeulen, Franks, Kloft, Müller 2021, Explainable Deep One-Class Classification, "
        "ICLR",
        year=2021,
        family="synthetic anomalies",
        needs_internet=True,
        trains=True,
        weights="layer2 of ResNet18 distilled from EfficientNet-Lite, instead of the first ten layers of ImageNet's "
        "VGG11, also frozen; two convolutions of 128 channels are trained upon it instead of 512, for a number of "
        "steps with batches of 16 that suits a few images on a CPU, instead of 200 epochs with batches of 128, and so "
        "at a larger learning rate. Trained with confetti noise as the paper does for MVTec AD, not with labeled "
        "defects.",
        original=Original(
            options={"backbone": "vgg11_bn", "width": 512, "batch_size": 128, "learning_rate": 1e-3},
            pretrained="ImageNet",
            lengths={"steps": "200 epochs of ten copies of each image"},
            departs=("frozen layers keep their batch statistics and get standardized inputs",),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class FCDD:
    """Fully Convolutional Data Description.

    Attributes:
        seed: Seed of the first weights, the order of the images, their changes and the confetti.
        backbone: The frozen layers, see `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stage: Index of its stage that is used, of stride 8 or less; see `tensors.Backbone`.
        image_size: Both sides of the input, in pixels, a multiple of 8.
        width: Channels of the two convolutions that are trained.
        steps: Training steps.
        batch_size: Images per step.
        anomalies: Share of the training images that get confetti.
        learning_rate: Learning rate at the first step; it falls to a twentieth.
        sigma: Standard deviation of the Gaussian that enlarges the map, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: Liznerski et al. 2021: objective, eq. 2-4; maps by transposed convolution, section 3 and algorithm 1;
    network and training for MVTec AD, section 4.2 and the authors' public configuration.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stage: int = 2
    image_size: int = 224
    width: int = 128
    steps: int = 200
    batch_size: int = 16
    anomalies: float = 0.5
    learning_rate: float = 1e-2
    sigma: float = 12.0
    _frozen: Backbone = field(init=False, repr=False)
    _head: nn.Sequential | None = field(default=None, init=False, repr=False)
    _range: torch.Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.width, self.steps, self.batch_size) < 1:
            raise ZooError(
                "fcdd: expected width, steps and batch_size of at least 1, got "
                f"{self.width}, {self.steps} and {self.batch_size}."
            )
        if self.image_size < STRIDE or self.image_size % STRIDE:
            raise ZooError(f"fcdd: expected an image_size that is a multiple of {STRIDE}, got {self.image_size}.")
        if not 0 < self.anomalies < 1 or self.learning_rate <= 0 or self.sigma <= 0:
            raise ZooError(
                "fcdd: expected anomalies between 0 and 1, learning_rate and sigma above 0, got "
                f"{self.anomalies}, {self.learning_rate} and {self.sigma}."
            )
        with seeded(self.seed):
            self._frozen = Backbone(self.backbone, (self.stage,), self.weights)
        if self._frozen.strides[0] > STRIDE:
            raise ZooError(
                f"fcdd: expected a stage of stride {STRIDE} or less, got stage {self.stage} of {self.backbone}, which "
                f"has {self._frozen.strides[0]}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the last layers on good images and on the same with confetti; see `Method.fit`."""
        images = resized(normal, round(self.image_size * ENLARGED)).permute(0, 2, 3, 1).numpy()
        contrasts = contrast_normalized(resized(normal, self.image_size).float() / 255)
        self._range = torch.stack([contrasts.amin((0, 2, 3)), contrasts.amax((0, 2, 3))])
        rng = np.random.default_rng(self.seed)
        with seeded(self.seed), torch.inference_mode(False), torch.enable_grad():
            head = self._new_head()

            def loss() -> torch.Tensor:
                chosen = rng.integers(len(images), size=self.batch_size)
                anomalous = rng.random(self.batch_size) < self.anomalies
                batch = []
                for image, bad in zip(images[chosen], anomalous, strict=True):
                    batch.append(changed(malformed(image, rng) if bad else image, self.image_size, rng))
                output = head(self._features(unit_tensor(np.stack(batch))))
                return one_class_loss(pseudo_huber(output), torch.as_tensor(anomalous))

            optimizer = torch.optim.SGD(
                head.parameters(), self.learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
            )
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, LAST_RATE ** (1 / self.steps))
            train_steps(loss, self.steps, [optimizer], schedules=[schedule], progress=progress)
        self._head = head.requires_grad_(False).eval()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """The score is the mean of the output, and the map its enlargement. See `Method.predict`."""
        head = require_fitted(self._head, "fcdd")

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            heat = pseudo_huber(head(self._features(to_batch([image], self.image_size))))
            return float(heat.mean()), enlarged(heat, self.sigma)[0, 0]

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_frozen": self._frozen, "_head": self._new_head(), "_range": None}

    def model_bytes(self) -> int:
        """The frozen layers, the trained ones and the range of contrasts."""
        return tensor_bytes(self._frozen, require_fitted(self._head, "fcdd"), require_fitted(self._range, "fcdd"))

    def _features(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in 0..1 -> (N, C, S / 8, S / 8)."""
        low, high = require_fitted(self._range, "fcdd").view(2, 1, 3, 1, 1)
        # Channels of one value, such as those of a blank image, have no range.
        contrasts = (contrast_normalized(batch) - low) / (high - low).clamp_min(1e-6)
        with torch.no_grad():
            features = self._frozen(contrasts)[0]
        return F.max_pool2d(features, STRIDE // self._frozen.strides[0])

    def _new_head(self) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs in (self._frozen.channels[0], self.width):
            layers += [nn.Conv2d(inputs, self.width, 3, padding=1), nn.BatchNorm2d(self.width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(self.width, 1, 1))


def contrast_normalized(batch: torch.Tensor) -> torch.Tensor:
    """Each image (N, 3, H, W) minus its mean, divided by its mean absolute deviation; the same light everywhere."""
    centered = batch - batch.mean((1, 2, 3), keepdim=True)
    return centered / centered.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-6)


def changed(image: Uint8Array, side: int, rng: np.random.Generator) -> Uint8Array:
    """An image (L, L, 3) uint8, cropped or resized to (side, side, 3), with small changes of color and white noise."""
    if rng.random() < 0.5:
        top, left = rng.integers(image.shape[0] - side + 1, size=2)
        image = image[top : top + side, left : left + side]
    else:
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        image = recolored(image, rng, JITTER)
    colors = image.astype(np.float32)
    if rng.random() < 0.5:
        colors += WHITE * colors.std() * rng.standard_normal(colors.shape, np.float32)
    return np.clip(np.rint(colors), 0, 255).astype(np.uint8)


def pseudo_huber(output: torch.Tensor) -> torch.Tensor:
    """A(X), the distance from 0: quadratic near it, then linear. Source: Liznerski et al. 2021, eq. 3."""
    return (output.square() + 1).sqrt() - 1


def one_class_loss(heat: torch.Tensor, anomalous: torch.Tensor) -> torch.Tensor:
    """Mean heat of good images, and -log(1 - exp(-mean heat)) of anomalous ones.

    Args:
        heat: (N, 1, h, w), A(X) of each image.
        anomalous: (N,) bool.

    Source: Liznerski et al. 2021, eq. 4, after the hypersphere classifier of Ruff et al. 2020.
    """
    means = heat.mean((1, 2, 3))
    return torch.where(anomalous, -torch.log(1 - torch.exp(-means) + TINY), means).mean()


def enlarged(heat: torch.Tensor, sigma: float) -> torch.Tensor:
    """Every value of a map is spread over its receptive field by a Gaussian, and all of them are added.

    Args:
        heat: (N, 1, h, w), whose position (i, j) is the center of pixels 8 i to 8 i + 7, and those of 8 j.
        sigma: Standard deviation in pixels.

    Returns:
        (N, 1, 8 h, 8 w), at the level of the map.

    Source: Liznerski et al. 2021, algorithm 1.
    """
    height, width = (STRIDE * side for side in heat.shape[2:])
    offsets = torch.arange(RECEPTIVE_FIELD) - (RECEPTIVE_FIELD - 1) / 2
    line = torch.exp(-offsets.square() / (2 * sigma**2))
    # The sum of the kernels at a pixel is then 1, except at the border, where fewer of them overlap.
    line = line * STRIDE / line.sum()
    spread = F.conv_transpose2d(heat, torch.outer(line, line)[None, None], stride=STRIDE)
    border = (RECEPTIVE_FIELD - STRIDE) // 2
    return spread[..., border : border + height, border : border + width]
