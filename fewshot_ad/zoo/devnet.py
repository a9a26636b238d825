"""DevNet: patches scored so that good images follow a prior and a few labeled anomalous ones deviate from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import cv2
import numpy as np
import torch
from torch import nn

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.deviation import (
    PatchScores,
    check_scales,
    deviation_loss,
    draws,
    joined_maps,
    pyramid,
    top_mean,
    train_scores,
    training_images,
    turned,
)
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

Explanation: TypeAlias = Literal["gradient", "patches"]


@baseline(
    Card(
        name="devnet",
        title="DevNet",
        paper="Pang, Ding, Shen, van den Hengel 2021, Explainable Deep Few-shot Anomaly Detection with Deviation "
        "Networks, arXiv:2108.00462",
        year=2021,
        family="distribution",
        supervision="labeled defects",
        needs_internet=True,
        trains=True,
        weights="ResNet18 distilled from EfficientNet-Lite, up to layer3, instead of ImageNet's up to layer4; 224 "
        "pixels instead of 448, which makes grids of the same size; a number of steps and of images that suits a CPU.",
        original=Original(
            options={"stage": 4, "image_size": 448, "steps": 1000, "batch_size": 48},
            pretrained="ImageNet",
            departs=("the backbone's batch statistics stay as they are", "maps are not scaled to 0..1 image by image"),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class DevNet:
    """DevNet: learns from good images and a few labeled anomalous ones, without their masks.

    Attributes:
        seed: Seed of everything random.
        backbone: See `tensors.Backbone`; all of it is trained further.
        weights: See `tensors.Backbone`.
        stage: Stage of the backbone whose features are scored: of a ResNet, 3 is layer3 and 4 is layer4.
        image_size: Both sides of the input at the first scale, in pixels.
        scales: Number of scales, each half as large as the one before.
        top: K of the multiple-instance learning, as a share of the patches in (0, 1].
        steps: Training steps.
        batch_size: Images per step, half of them anomalous; at least 2.
        learning_rate: Adam's learning rate, which falls to a tenth after every 200 steps.
        explanation: What the maps show: `gradient`, how much each pixel moves the score; or `patches`, the scores of
            the patches, which compare between images as well.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: Pang et al. 2021; values, pyramid, augmentation and maps as in the authors' public code.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stage: int = 3
    image_size: int = 224
    scales: int = 2
    top: float = 0.1
    steps: int = 300
    batch_size: int = 12
    learning_rate: float = 2e-4
    explanation: Explanation = "gradient"
    sigma: float = 4.0
    _scorer: Scorer | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.scales, self.steps) < 1 or self.batch_size < 2:
            raise ZooError(
                "devnet: expected scales and steps of at least 1 and a batch_size of at least 2, got "
                f"{self.scales}, {self.steps} and {self.batch_size}."
            )
        check_scales("devnet", self.image_size, self.scales)
        if not (0 < self.top <= 1 and self.learning_rate > 0 and self.sigma > 0):
            raise ZooError(
                "devnet: expected top in (0, 1], learning_rate and sigma above 0, got "
                f"{self.top}, {self.learning_rate} and {self.sigma}."
            )
        if self.explanation not in get_args(Explanation):
            raise ZooError(f"devnet: expected an explanation of gradient or patches, got {self.explanation!r}.")

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train backbone and scores by the deviation loss; see `Method.fit`."""
        images = training_images("devnet", normal, labeled, self.image_size)
        anomalies = self.batch_size - self.batch_size // 2
        anomalous = torch.arange(self.batch_size) >= self.batch_size - anomalies
        with seeded(self.seed) as generator, torch.inference_mode(False), torch.enable_grad():
            scorer = self._build()
            good, bad = (draws(kind, generator) for kind in images)

            def loss() -> torch.Tensor:
                batch = torch.cat([good(self.batch_size - anomalies), bad(anomalies)]).float() / 255
                scores = top_mean(scorer(turned(batch, generator)), self.top)
                return deviation_loss(scores, anomalous, generator)

            train_scores(scorer, loss, self.steps, self.learning_rate, progress)
        self._scorer = scorer

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = mean of the K highest patch scores, over the scales. See `Method.predict`."""
        scorer = require_fitted(self._scorer, "devnet")

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            batch = to_batch([image], self.image_size)
            if self.explanation == "patches":
                grids = scorer(batch)
                heat = joined_maps(grids)[0].numpy()
                heat = cv2.resize(heat, (self.image_size, self.image_size), interpolation=cv2.INTER_LINEAR)
                return float(top_mean(grids, self.top)), _smoothed(heat, self.sigma)
            # Inference mode records no gradient.
            with torch.inference_mode(False), torch.enable_grad():
                batch = batch.clone().requires_grad_()
                score = top_mean(scorer(batch), self.top)
                (gradient,) = torch.autograd.grad(score.sum(), batch)
            return float(score), _smoothed(gradient[0].abs().sum(0).numpy(), self.sigma)

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_scorer": self._build()}

    def model_bytes(self) -> int:
        """The trained backbone and the layer that scores."""
        return tensor_bytes(require_fitted(self._scorer, "devnet"))

    def _build(self) -> Scorer:
        return Scorer(Backbone(self.backbone, (self.stage,), self.weights), self.scales)


class Scorer(nn.Module):
    """Scores of the patches of an image, at several scales, by one layer on a backbone's features.

    Args:
        backbone: With one stage.
        scales: Number of scales.
    """

    def __init__(self, backbone: Backbone, scales: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.scales = scales
        self.patches = PatchScores(backbone.channels[0])

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, S, S) in 0..1 -> at each scale (N, h, w), at least 0."""
        return [self.patches(self.backbone(smaller)[0]) for smaller in pyramid(batch, self.scales)]


def _smoothed(heat: np.ndarray, sigma: float) -> Float32Array:
    smooth = cv2.GaussianBlur(heat, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(smooth, np.float32)
