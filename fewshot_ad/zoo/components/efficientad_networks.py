"""EfficientAD's teacher, student and autoencoder, the maps of their disagreement, and its loss of the hardest features.

Source: Batzner, Heckler & König 2024 (EfficientAD, WACV), sections 3.2 to 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.zoo.components.efficientad_autoencoder import Autoencoder
from fewshot_ad.zoo.components.efficientad_quantiles import Quantiles
from fewshot_ad.zoo.components.pdn import CHANNELS, PDN
from fewshot_ad.zoo.components.tensors import unit_tensor


@dataclass(frozen=True, eq=False)
class Teacher:
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
    def standardized(cls, pdn: PDN, images: Uint8Array) -> Teacher:
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
class Networks:
    """The teacher, and the student and the autoencoder that imitate it."""

    teacher: Teacher
    student: PDN
    autoencoder: Autoencoder

    def target(self, batch: torch.Tensor) -> torch.Tensor:
        """What the teacher says of (N, 3, side, side), (N, 384, h, w), without a gradient."""
        with torch.no_grad():
            return self.teacher(batch)

    def imitation(self, batch: torch.Tensor) -> torch.Tensor:
        """What the student takes the teacher to say of (N, 3, side, side), (N, 384, h, w)."""
        return self.student(batch)[:, :CHANNELS]

    def maps(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, 3, side, side) -> the raw maps of student against teacher and against autoencoder, (h, w) each."""
        of_teacher, of_autoencoder = self.student(batch).split(CHANNELS, 1)
        against_teacher = (self.teacher(batch) - of_teacher).square().mean(1)[0]
        return against_teacher, (self.autoencoder(batch) - of_autoencoder).square().mean(1)[0]


@dataclass(frozen=True, eq=False)
class Discrepancies:
    """The networks, and the quantiles that bring their two maps to one scale."""

    networks: Networks
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
