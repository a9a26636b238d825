"""EfficientAD with collaborative discrepancy optimization: a student that must fail on what is not good.

A small teacher describes patches; the student imitates it on good images, and an autoencoder, which sees the whole
image, does so too. Places where student and teacher, or student and autoencoder, disagree are anomalous. On good images
with noise patches the student learns to disagree inside the patches and to agree around them.

Sources: Batzner, Heckler & König 2024 (EfficientAD, WACV); Cao et al. 2023 (CDO, IEEE TII). Sections named below are
those of EfficientAD unless another paper is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.cdo import LARGEST, cdo_loss, noise_patches
from fewshot_ad.zoo.components.efficientad_autoencoder import Autoencoder
from fewshot_ad.zoo.components.efficientad_quantiles import Quantiles, held_out
from fewshot_ad.zoo.components.pdn import (
    BORDER,
    CHANNELS,
    PDN,
    RATE,
    STAGES,
    TABLES,
    WEIGHT_DECAY,
    GeneratedPictures,
    distill,
    load_teacher,
    save_teacher,
)
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

DECAY_AT, DECAY = 0.95, 0.1
PENALTY_GRAY_SHARE = 0.3
LIGHT = (0.8, 1.2)


@baseline(
    Card(
        name="efficientad_cdo",
        title="EfficientAD + CDO",
        paper="Batzner, Heckler & König 2024, EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level "
        "Latencies, WACV; Cao et al. 2023, Collaborative Discrepancy Optimization for Reliable Image Anomaly "
        "Localization, IEEE TII",
        year=2024,
        family="teacher-student",
        needs_internet=True,
        trains=True,
        weights="PDN distilled by this package from resnet18 (itself distilled) on generated pictures; the paper "
        "distills from WideResNet-101 on ImageNet and takes its penalty pictures from there. The published step counts "
        "are for a GPU.",
        original=Original(
            pretrained="distilled from WideResNet-101, ImageNet",
            at_hand="distilled by this package from resnet18, generated images",
            departs=("generated images in place of ImageNet",),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class EfficientAdCdo:
    """EfficientAD trained with CDO's loss as well.

    Attributes:
        seed: Seed of everything random.
        size: Size of the PDN, `S` or `M`.
        image_size: Side of the networks' input in pixels, a multiple of 32, at least 64.
        steps: Training steps of student and autoencoder, one image each.
        hard: Share of the features that the hard feature loss averages, in (0, 1].
        gamma: Exponent of CDO's weights, at least 0.
        margin: See `cdo_loss`, in 0..4.
        alpha: Weight of the student's map, in 0..1; the autoencoder's map has the rest.
        backbone: Network that the teacher imitates, see `tensors.Backbone`.
        weights: Weights of the backbone, see `tensors.Backbone`.
        teacher: A safetensors file: the teacher is loaded from it if it exists, else distilled and written to it.
        teacher_steps: Training steps of the teacher.
        pictures: Number of generated pictures, for distillation and for the penalty.

    Raises:
        ZooError: A setting makes no sense.
    """

    seed: int = 0
    size: str = "S"
    image_size: int = 256
    steps: int = 70_000
    hard: float = 0.001
    gamma: float = 2.0
    margin: float = LARGEST
    alpha: float = 0.5
    backbone: str = "resnet18"
    weights: str | None = None
    teacher: str | None = None
    teacher_steps: int = 60_000
    pictures: int = 1000
    _discrepancies: _Discrepancies | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.size not in TABLES:
            raise ZooError(f"efficientad_cdo: expected size S or M, got {self.size!r}.")
        if self.image_size < 64 or self.image_size % 32:
            raise ZooError(
                f"efficientad_cdo: expected image_size as a multiple of 32 from 64 on, got {self.image_size}."
            )
        if min(self.steps, self.teacher_steps, self.pictures) < 1:
            raise ZooError(
                f"efficientad_cdo: expected steps, teacher_steps and pictures of at least 1, got {self.steps}, "
                f"{self.teacher_steps} and {self.pictures}."
            )
        shares_fit = 0 < self.hard <= 1 and 0 <= self.alpha <= 1
        if not (shares_fit and self.gamma >= 0 and 0 <= self.margin <= LARGEST):
            raise ZooError(
                f"efficientad_cdo: expected hard in (0, 1], alpha in [0, 1], gamma of at least 0 and margin in [0, 4], "
                f"got {self.hard}, {self.alpha}, {self.gamma} and {self.margin}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Distill or load the teacher, train student and autoencoder, and set the quantiles; see `Method.fit`."""
        images = resized(normal, self.image_size).permute(0, 2, 3, 1).numpy()
        rng = np.random.default_rng([self.seed, 7])
        pictures = GeneratedPictures(self.pictures, self.image_size, self.seed, progress)
        pdn = self._load_or_distill(pictures, progress)
        train, held = held_out(images, rng)
        with seeded(self.seed):
            # The second half of the student's channels imitates the autoencoder.
            student, autoencoder = PDN(self.size, 2 * CHANNELS), Autoencoder(self.image_size)
            networks = _Networks(_Teacher.standardized(pdn, train), student, autoencoder)
            self._train(networks, train, pictures, rng, progress)
        with torch.no_grad():
            maps = [networks.maps(unit_tensor(held[i : i + 1])) for i in range(len(held))]
        student_range, autoencoder_range = (Quantiles.of(kind) for kind in zip(*maps, strict=True))
        self._discrepancies = _Discrepancies(networks, student_range, autoencoder_range)

    def _load_or_distill(self, pictures: GeneratedPictures, progress: Progress | None) -> PDN:
        """The teacher from its file, or a new one, which is then written to the file."""
        record = {
            "size": self.size,
            "backbone": self.backbone,
            "weights": self.weights and Path(self.weights).name,
            "teacher_steps": self.teacher_steps,
        }
        if self.teacher is not None and Path(self.teacher).exists():
            return load_teacher(Path(self.teacher), record)
        with seeded(self.seed):  # building a network draws random numbers
            backbone = Backbone(self.backbone, STAGES, self.weights)
        if backbone.strides != (8, 16):
            raise ZooError(f"expected a backbone with stages at strides 8 and 16, got {backbone.strides}.")
        pdn, _ = distill(self.size, backbone, pictures, self.teacher_steps, self.seed, progress)
        if self.teacher is not None:
            save_teacher(Path(self.teacher), pdn, {**record, "image_size": self.image_size, "seed": self.seed})
        return pdn

    def _train(
        self,
        networks: _Networks,
        images: Uint8Array,
        pictures: GeneratedPictures,
        rng: np.random.Generator,
        progress: Progress | None,
    ) -> None:
        """Train student and autoencoder. Source: section 3.2 and 3.3, with CDO's loss added."""

        def loss() -> torch.Tensor:
            image = images[rng.integers(len(images))]
            noisy, mask = noise_patches(image, rng)
            good, relit = unit_tensor(image[None]), _relit(unit_tensor(image[None]), rng)
            batch = torch.cat([good, unit_tensor(noisy[None]), relit])
            with torch.no_grad():
                target = networks.teacher(batch)
            penalty = pictures.crops(1, PENALTY_GRAY_SHARE, rng)
            of_teacher, of_autoencoder = networks.student(torch.cat([batch, penalty])).split(CHANNELS, 1)
            reconstruction = networks.autoencoder(relit)
            cells = F.max_pool2d(torch.as_tensor(mask)[None].float(), 4)[:, BORDER:-BORDER, BORDER:-BORDER] > 0
            return (
                hard_feature_loss((target[:1] - of_teacher[:1]).square(), self.hard)
                + of_teacher[3:].square().mean()
                + cdo_loss(target[1:2], of_teacher[1:2], cells, self.gamma, self.margin)
                + F.mse_loss(reconstruction, target[2:])
                + F.mse_loss(of_autoencoder[2:3], reconstruction)
            )

        weights = [*networks.student.parameters(), *networks.autoencoder.parameters()]
        optimizer = torch.optim.Adam(weights, RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [max(1, int(DECAY_AT * self.steps))], DECAY)
        train_steps(loss, self.steps, [optimizer], schedules=[schedule], progress=progress)
        networks.student.requires_grad_(False).eval()
        networks.autoencoder.requires_grad_(False).eval()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = maximum of the map; see `Method.predict`.

        Within 16 pixels of the border (at `image_size`) the map repeats the value of the nearest position further in.
        """
        discrepancies = require_fitted(self._discrepancies, "efficientad_cdo")

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            heat = discrepancies.map(to_batch([image], self.image_size), self.alpha)
            return float(heat.max()), F.pad(heat[None], (BORDER,) * 4, mode="replicate")[0]

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        empty = torch.empty(0)
        student, autoencoder = PDN(self.size, 2 * CHANNELS), Autoencoder(self.image_size)
        networks = _Networks(_Teacher(PDN(self.size), empty, empty), student, autoencoder)
        # The classes of the named tuples stand for their values.
        return {"_discrepancies": _Discrepancies(networks, Quantiles, Quantiles)}  # type: ignore[arg-type]

    def model_bytes(self) -> int:
        """The three networks and the statistics of the teacher."""
        networks = require_fitted(self._discrepancies, "efficientad_cdo").networks
        teacher = networks.teacher
        return tensor_bytes(teacher.pdn, networks.student, networks.autoencoder, teacher.mean, teacher.deviation)


@dataclass(frozen=True, eq=False)
class _Teacher:
    """A PDN whose features are standardized, per channel, over the good images.

    Attributes:
        pdn: The network, frozen.
        mean: (1, 384, 1, 1) of its features.
        deviation: (1, 384, 1, 1) standard deviation of its features, above 0.
    """

    pdn: PDN
    mean: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def standardized(cls, pdn: PDN, images: Uint8Array) -> _Teacher:
        """With the statistics of images (n, side, side, 3) uint8 RGB."""
        with torch.no_grad():
            outputs = [pdn(unit_tensor(images[i : i + 1])) for i in range(len(images))]
        mean = torch.stack([o.mean((0, 2, 3)) for o in outputs]).mean(0).view(1, -1, 1, 1)
        variance = torch.stack([(o - mean).square().mean((0, 2, 3)) for o in outputs]).mean(0)
        return cls(pdn, mean, variance.sqrt().clamp_min(1e-6).view(1, -1, 1, 1))

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, side, side) in 0..1 -> (N, 384, h, w)."""
        return (self.pdn(batch) - self.mean) / self.deviation


@dataclass(frozen=True, eq=False)
class _Networks:
    """The teacher, and the student and the autoencoder that imitate it."""

    teacher: _Teacher
    student: PDN
    autoencoder: Autoencoder

    def maps(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, 3, side, side) -> the raw maps of student against teacher and against autoencoder, (h, w) each."""
        of_teacher, of_autoencoder = self.student(batch).split(CHANNELS, 1)
        against_teacher = (self.teacher(batch) - of_teacher).square().mean(1)[0]
        return against_teacher, (self.autoencoder(batch) - of_autoencoder).square().mean(1)[0]


@dataclass(frozen=True, eq=False)
class _Discrepancies:
    """The networks, and the quantiles that bring their two maps to one scale."""

    networks: _Networks
    student_range: Quantiles
    autoencoder_range: Quantiles

    def map(self, batch: torch.Tensor, alpha: float) -> torch.Tensor:
        """(1, 3, side, side) -> (h, w): the weighted mean of both maps; `alpha` is the weight of the first."""
        against_teacher, against_autoencoder = self.networks.maps(batch)
        heat = alpha * self.student_range.normalized(against_teacher)
        return heat + (1 - alpha) * self.autoencoder_range.normalized(against_autoencoder)


def hard_feature_loss(distance: torch.Tensor, hard: float) -> torch.Tensor:
    """Mean of the largest squared distances.

    Args:
        distance: Any shape: squared distances of single features.
        hard: Share of the distances that counts, in 0..1; at least one counts.

    Source: section 3.2, p_hard = 0.999.
    """
    flat = distance.flatten()
    return flat.topk(max(1, round(hard * len(flat)))).values.mean()


def _relit(batch: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Brightness, contrast or saturation times 0.8 to 1.2. Source: section 3.3."""
    gray = batch.mean(1, keepdim=True)
    origin = (torch.zeros_like(batch), gray.mean((2, 3), keepdim=True), gray)[int(rng.integers(3))]
    return (origin + float(rng.uniform(*LIGHT)) * (batch - origin)).clamp(0, 1)
