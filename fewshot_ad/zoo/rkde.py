"""R-KDE: the density of the features of regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torchvision.ops import roi_align  # type: ignore[import-untyped]

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.proposals import DetectorProposals, ProposalNet, edge_proposals
from fewshot_ad.zoo.components.shots import joined, shots
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

Proposals: TypeAlias = Literal["edges", "rpn", "rcnn"]
# Side of the grid of samples in a region; their average is its feature.
CELLS = 7
# Distances of 8 bytes that are in memory at once.
PAIRS = 4_000_000


@baseline(
    Card(
        name="rkde",
        title="R-KDE",
        paper="Adey, Akçay, Bordewich, Breckon 2021, Region Based Anomaly Detection with Real-Time Training and "
        "Analysis, ICMLA",
        year=2021,
        family="distribution",
        needs_internet=True,
        trains=False,
        weights="The paper's Faster R-CNN, trained on Visual Genome, is not at hand. Regions are windows that frame "
        "edges (after Edge Boxes), with proposals='rpn' those of torchvision's proposal network with random "
        "weights, or with proposals='rcnn' and detector=FILE those of torchvision's Faster R-CNN; features are "
        "ResNet18's, distilled from EfficientNet-Lite, averaged in each region.",
        original=Original(
            options={"proposals": "rcnn"},
            pretrained="Faster R-CNN on Visual Genome",
            departs=("features of one network, regions of another",),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class RKDE:
    """R-KDE.

    A region's anomaly is minus the logarithm of its density. A probability of it by a logistic function has the same
    order, but is 1 in float32 for all that is far from good.

    Attributes:
        seed: Seed of the proposal net's weights and of the choice of training regions.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        proposals: `edges`, `rpn` or `rcnn`, see `components/proposals.py`.
        detector: Weights for `rcnn`, see `proposals.DetectorProposals`.
        min_box_size: Sides of a region of `rpn` and `rcnn`, at least, in pixels.
        min_score: Score of a region of `rpn` and `rcnn`, at least, in 0..1.
        regions: Regions of an image, at most.
        overlap: Regions that overlap a better one by more than this (IoU) are left out; in (0, 1].
        components: Number of principal components, or, below 1, the share of the variance that they explain.
        max_points: Training regions, at least 2; a random choice of at most this many is kept.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: Adey et al. 2021: regions, features, principal components, density.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stages: Sequence[int] = (2, 3)
    image_size: int = 256
    proposals: Proposals = "edges"
    detector: str | None = None
    min_box_size: float = 25
    min_score: float = 0.001
    regions: int = 100
    overlap: float = 0.3
    components: float = 16
    max_points: int = 40_000
    _network: Backbone = field(init=False, repr=False)
    _proposal_net: ProposalNet | DetectorProposals | None = field(init=False, repr=False)
    _density: RegionDensity | None = field(default=None, init=False, repr=False)
    _background: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.proposals not in get_args(Proposals):
            raise ZooError(f"rkde: expected proposals among {get_args(Proposals)}, got {self.proposals!r}.")
        if self.regions < 1 or self.max_points < 2 or self.components <= 0 or not 0 < self.overlap <= 1:
            raise ZooError(
                "rkde: expected regions >= 1, max_points >= 2, components > 0 and overlap above 0 and at most 1, got "
                f"{self.regions}, {self.max_points}, {self.components} and {self.overlap}."
            )
        if self.min_box_size < 0 or not 0 <= self.min_score < 1:
            raise ZooError(
                f"rkde: expected min_box_size of at least 0 and min_score in [0, 1), got {self.min_box_size} and "
                f"{self.min_score}."
            )
        if (self.proposals == "rcnn") != (self.detector is not None):
            raise ZooError(
                "rkde: expected detector=FILE with proposals='rcnn', and with that alone, got "
                f"proposals={self.proposals!r} and detector={self.detector!r}."
            )
        with seeded(self.seed):
            self._network = Backbone(self.backbone, self.stages, self.weights)
            self._proposal_net = None
            limits = (self.regions, self.overlap, self.min_box_size, self.min_score)
            if self.proposals == "rpn":
                self._proposal_net = ProposalNet(sum(self._network.channels), *limits)
            elif self.detector is not None:
                self._proposal_net = DetectorProposals(*limits, self.detector)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Estimate the density of the images' regions; see `Method.fit`."""
        batches = (batch for batch, _ in shots(normal, self.image_size, (), progress))
        features = torch.cat([self._describe(batch)[1] for batch in batches])
        if len(features) < 2:
            raise ZooError(
                f"rkde: expected at least 2 regions in the good images, got {len(features)}. Raise regions or overlap."
            )
        if len(features) > self.max_points:
            order = torch.randperm(len(features), generator=torch.Generator().manual_seed(self.seed))
            features = features[order[: self.max_points].sort().values]
        self._density = RegionDensity.fit(features, self.components)
        self._background = float(self._density.surprise(features).min())

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = the most anomalous region; each pixel of the map has the most anomalous region that covers it.

        See `Method.predict`.
        """
        density = require_fitted(self._density, "rkde")

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            boxes, features = self._describe(to_batch([image], self.image_size))
            heat = np.full((self.image_size, self.image_size), self._background, np.float32)
            if len(boxes) == 0:
                return self._background, heat
            surprise = density.surprise(features)
            for i in surprise.argsort().tolist():
                left, top = (int(v) for v in boxes[i, :2])
                right, bottom = (math.ceil(float(v)) for v in boxes[i, 2:])
                # In ascending order, so the larger value stays where regions overlap.
                heat[top:bottom, left:right] = float(surprise[i])
            return float(surprise.max()), heat

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        networks: dict[str, Any] = {"_network": self._network, "_proposal_net": self._proposal_net}
        return {**networks, "_density": RegionDensity, "_background": None}

    def model_bytes(self) -> int:
        """The backbone, the proposal net if there is one, and the density."""
        density = require_fitted(self._density, "rkde")
        networks = [self._network] if self._proposal_net is None else [self._network, self._proposal_net]
        return tensor_bytes(*networks, density.mean, density.components, density.points)

    def _describe(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One image (1, 3, S, S) in 0..1 -> its regions (r, 4) in pixels and their features (r, d)."""
        with torch.no_grad():
            features = joined(self._network(batch))
            if self._proposal_net is None:
                pixels = np.ascontiguousarray((batch[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
                boxes = edge_proposals(pixels, self.regions, self.overlap)
            else:
                boxes = self._proposal_net(batch, features)
            scale = features.shape[2] / self.image_size
            cells = roi_align(features, [boxes], CELLS, scale, sampling_ratio=2, aligned=True)
            return boxes, cells.mean((2, 3))


@dataclass(frozen=True, eq=False)
class RegionDensity:
    """A Gaussian kernel density on principal components, the bandwidth by Scott's rule.

    Attributes:
        mean: (d,) float64 of the features.
        components: (d, k) float64, the first principal directions, divided so that the kernel is a unit Gaussian.
        points: (n, k) float64, the training features under them.
        log_norm: Normalization, subtracted from the logarithm of the kernel sum.
    """

    mean: torch.Tensor
    components: torch.Tensor
    points: torch.Tensor
    log_norm: float

    @classmethod
    def fit(cls, features: torch.Tensor, components: float) -> RegionDensity:
        """Estimate the density.

        Args:
            features: (n, d), n > 1.
            components: Number of principal components, or, below 1, the share of the variance that they explain.

        Source: Scott 1992, section 6.3, for the bandwidth n^(-1 / (k + 4)).
        """
        features = features.double()
        n = len(features)
        mean = features.mean(0)
        _, values, directions = torch.linalg.svd(features - mean, full_matrices=False)
        variance = values.square() / (n - 1)
        # Directions without any spread would make the density infinite.
        k = int((variance > 1e-10 * variance[0]).sum())
        if components < 1:
            explained = variance.cumsum(0) / variance.sum()
            k = min(k, int((explained < components).sum()) + 1)
        else:
            k = min(k, int(components))
        bandwidth = variance[:k].clamp_min(1e-30).sqrt() * n ** (-1 / (k + 4))
        kernel = directions[:k].T / bandwidth
        log_norm = float(math.log(n) + k / 2 * math.log(2 * math.pi) + bandwidth.log().sum())
        return cls(mean, kernel, (features - mean) @ kernel, log_norm)

    def surprise(self, features: torch.Tensor) -> torch.Tensor:
        """Minus the logarithm of the density at features (m, d): (m,) float32."""
        queries = (features.double() - self.mean) @ self.components
        surprises = []
        for part in queries.split(max(1, PAIRS // len(self.points))):
            squared = torch.cdist(part, self.points, compute_mode="donot_use_mm_for_euclid_dist").square()
            surprises.append(self.log_norm - torch.logsumexp(-squared / 2, dim=1))
        return torch.cat(surprises).float()
