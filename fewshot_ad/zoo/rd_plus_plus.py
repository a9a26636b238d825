"""RD++: reverse distillation from projections of the features, which are trained to drop what is abnormal.

Source: Tien et al. 2023, Revisiting Reverse Distillation for Anomaly Detection (CVPR); hyper-parameters, losses and
pseudo-anomalies as in the authors' public code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.optimal_transport import sinkhorn_divergence
from fewshot_ad.zoo.components.reverse_distillation import (
    BLUEPRINTS,
    Decoder,
    OneClassEmbedding,
    discrepancy_map,
    distillation_loss,
)
from fewshot_ad.zoo.components.shots import smoothed
from fewshot_ad.zoo.components.simplex_noise import with_noise
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import shuffled_batches, train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

STAGES = (1, 2, 3)
BETAS = (0.5, 0.999)
# Weights of the parts of the projections' loss, whose sum is divided by theirs.
TRANSPORT, RECONSTRUCTION, CONTRAST = 1.0, 0.01, 0.1
# Cosine up to which good projections and features of pseudo-anomalies may be alike.
MARGIN = 0.5
# Blur of the optimal transport, a distance between unit vectors.
BLUR = 0.05
# Positions along a side between which features are transported.
TRANSPORT_GRID = 8


@baseline(
    Card(
        name="rd_plus_plus",
        title="RD++",
        paper="Tien, Nguyen, Tran, Huy, Duong, Nguyen, Truong 2023, Revisiting Reverse Distillation for Anomaly "
        "Detection, CVPR",
        year=2023,
        family="teacher-student",
        needs_internet=True,
        trains=True,
        weights="ResNet18 distilled by this package at 128 pixels instead of ImageNet's WideResNet50 at 256; a number "
        "of steps that suits a few images on a CPU instead of 10 to 300 epochs, set per product.",
        original=Original(
            options={"backbone": "wide_resnet50_2", "image_size": 256},
            pretrained="ImageNet",
            lengths={"steps": "10 to 300 epochs, set per product"},
            departs=(
                "optimal transport between the patches of two images; the authors' code compares a batch with its own "
                "permutation, which is always 0",
                "a new permutation of the simplex noise for each image, not one for all",
                "no gradients accumulated over two batches",
            ),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class RDPlusPlus:
    """RD++: reverse distillation with projections.

    Attributes:
        seed: Seed of everything random.
        backbone: The teacher, see `tensors.Backbone`; the student has blocks like those of a ResNet.
        weights: See `tensors.Backbone`.
        image_size: Both sides of the input, in pixels: a multiple of twice the stride of the teacher's last
            stage, which is 32 for a ResNet, and at least twice that.
        steps: Training steps.
        batch_size: Images per step, at most.
        projection_rate: Adam's learning rate for the projections.
        distillation_rate: Adam's learning rate for the bottleneck and the decoder.
        projection_weight: Weight of the projections' loss beside that of the distillation.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    image_size: int = 128
    steps: int = 200
    batch_size: int = 16
    projection_rate: float = 1e-3
    distillation_rate: float = 5e-3
    projection_weight: float = 0.2
    sigma: float = 4.0
    _teacher: Backbone = field(init=False, repr=False)
    _student: Student | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1:
            raise ZooError(
                f"rd_plus_plus: expected steps and batch_size of at least 1, got {self.steps} and {self.batch_size}."
            )
        if min(self.projection_rate, self.distillation_rate, self.sigma) <= 0 or self.projection_weight < 0:
            raise ZooError(
                "rd_plus_plus: expected projection_rate, distillation_rate and sigma above 0, projection_weight of at "
                f"least 0, got {self.projection_rate}, {self.distillation_rate}, {self.sigma} and "
                f"{self.projection_weight}."
            )
        with seeded(self.seed):
            self._teacher = Backbone(self.backbone, STAGES, self.weights)
        # The bottleneck's map, at half the size of the last stage's, must have whole positions, and more than one.
        stride = 2 * self._teacher.strides[-1]
        if self.image_size < 2 * stride or self.image_size % stride:
            raise ZooError(
                f"rd_plus_plus: expected an image_size of {2 * stride}, {3 * stride}, {4 * stride}, ..., got "
                f"{self.image_size}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train projections, bottleneck and decoder together; see `Method.fit`."""
        images = resized(normal, self.image_size)
        rng = np.random.default_rng(self.seed)
        with seeded(self.seed) as generator, torch.inference_mode(False), torch.enable_grad():
            student = self._build()
            # The teacher is frozen, so its features of each good image are computed once.
            with torch.no_grad():
                of_each = [self._teacher(image[None].float() / 255) for image in images]
            stages = [torch.cat(stage) for stage in zip(*of_each, strict=True)]
            batches = shuffled_batches(len(images), self.batch_size, generator)

            def loss() -> torch.Tensor:
                batch = next(batches)
                good = [stage[batch] for stage in stages]
                with torch.no_grad():
                    abnormal = self._teacher(with_noise(images[batch].float() / 255, rng))
                projected = student.project(good)
                distillation = distillation_loss(good, student.rebuild(projected))
                projection = projection_loss(abnormal, student.project(abnormal), projected)
                return distillation + self.projection_weight * projection

            projections = torch.optim.Adam(student.projections.parameters(), self.projection_rate, BETAS)
            others = [*student.embedding.parameters(), *student.decoder.parameters()]
            distillation = torch.optim.Adam(others, self.distillation_rate, BETAS)
            train_steps(loss, self.steps, [projections, distillation], progress=progress)
        self._student = student.requires_grad_(False).eval()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = maximum of the smoothed map of angles between teacher and student. See `Method.predict`."""
        student = require_fitted(self._student, "rd_plus_plus")

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            features = self._teacher(to_batch([image], self.image_size))
            heat = discrepancy_map(features, student.rebuild(student.project(features)), self.image_size)
            smooth = smoothed(heat[0].numpy(), self.image_size, self.sigma)
            return float(smooth.max()), smooth

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_teacher": self._teacher, "_student": self._build()}

    def model_bytes(self) -> int:
        """Both networks."""
        return tensor_bytes(self._teacher, require_fitted(self._student, "rd_plus_plus"))

    def _build(self) -> Student:
        return Student(self.backbone, self._teacher.channels)


class Student(nn.Module):
    """Projections of a teacher's features, and the network that rebuilds the features from them.

    Args:
        backbone: Name of the teacher, after which the blocks are built.
        channels: Channels of the teacher's stages, finest first.
    """

    def __init__(self, backbone: str, channels: Sequence[int]) -> None:
        super().__init__()
        blueprint = BLUEPRINTS.get(backbone, BLUEPRINTS["resnet18"])
        self.projections = nn.ModuleList(_projection(count) for count in channels)
        self.embedding = OneClassEmbedding(channels, blueprint)
        self.decoder = Decoder(channels, blueprint)

    def project(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The projections of feature maps, each in its own shape (N, C, h, w)."""
        return [projection(stage) for projection, stage in zip(self.projections, features, strict=True)]

    def rebuild(self, projected: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The teacher's feature maps, as far as they can be rebuilt from their projections."""
        rebuilt: list[torch.Tensor] = self.decoder(self.embedding(projected))
        return rebuilt


def _projection(channels: int) -> nn.Module:
    """Four convolutions through a quarter of the channels."""
    layers: list[nn.Module] = []
    inputs = channels
    for outputs in (channels // 2, channels // 4, channels // 2, channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.LeakyReLU()]
        inputs = outputs
    return nn.Sequential(*layers)


def projection_loss(
    abnormal: Sequence[torch.Tensor], projected_abnormal: Sequence[torch.Tensor], projected: Sequence[torch.Tensor]
) -> torch.Tensor:
    """L_SSOT, L_Recon and L_Con, weighed and summed over the stages.

    Args:
        abnormal: (N, C, h, w) per stage: the teacher's features of good images with noise.
        projected_abnormal: Their projections.
        projected: The projections of the good images' features.
    """
    total = torch.zeros(())
    for raw, noisy, good in zip(abnormal, projected_abnormal, projected, strict=True):
        alike = F.cosine_similarity(raw.flatten(1), good.flatten(1), dim=1)
        total = total + TRANSPORT * compactness_loss(good).mean()
        total = total + RECONSTRUCTION * (1 - F.cosine_similarity(noisy, good, dim=1)).mean()
        total = total + CONTRAST * (alike - MARGIN).clamp_min(0).mean()
    return total / (TRANSPORT + RECONSTRUCTION + CONTRAST)


def compactness_loss(projected: torch.Tensor) -> torch.Tensor:
    """L_SSOT: the cost to transport the patches of each image (N, C, h, w) to those of the next one; (N,).

    Patches count by their directions, on a grid of at most 8 by 8, which keeps the transport cheap.
    """
    grid = F.adaptive_avg_pool2d(projected, [min(TRANSPORT_GRID, side) for side in projected.shape[2:]])
    cloud = F.normalize(grid.flatten(2).mT, dim=2)
    # Batches are in random order, so the next image is a random other one.
    return sinkhorn_divergence(cloud, cloud.roll(1, 0), BLUR)
