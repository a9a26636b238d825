"""DRA: separate heads for labeled, for made-up and for residual abnormality, and one for normality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.cut_paste import cut_paste
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

# Of the images of a batch: good ones and those made up from good ones, and labeled anomalous ones.
GOOD, SEEN, PSEUDO = 0, 1, 2
# Of the good ones drawn, so many become pseudo anomalies.
PSEUDO_SHARE = 0.5
HOLISTIC_WIDTH = 256
# Strength of the change of a pseudo anomaly's colors.
JITTER = 0.1


@baseline(
    Card(
        name="dra",
        title="DRA",
        paper="Ding, Pang, Shen 2022, Catching Both Gray and Black Swans: Open-set Supervised Anomaly Detection, CVPR",
        year=2022,
        family="synthetic anomalies",
        supervision="labeled defects",
        needs_internet=True,
        trains=True,
        weights="ResNet18 distilled from EfficientNet-Lite, up to layer3, instead of ImageNet's up to layer4; 224 "
        "pixels instead of 448, which makes grids of the same size; a number of steps and of images that suits a CPU.",
        original=Original(
            options={"stage": 4, "image_size": 448, "steps": 600, "batch_size": 48},
            pretrained="ImageNet",
            departs=(
                "the backbone's batch statistics stay as they are",
                "one set of reference images for all inspections",
                "maps of the abnormality heads' patch scores, where the paper has none",
            ),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class DRA:
    """Disentangled Representations of Abnormalities: learns from good and a few labeled images, without their masks.

    Attributes:
        seed: Seed of everything random.
        backbone: See `tensors.Backbone`; all of it is trained further.
        weights: See `tensors.Backbone`.
        stage: Stage of the backbone whose features the heads take: of a ResNet, 3 is layer3 and 4 is layer4.
        image_size: Both sides of the input at the first scale, in pixels; the paper has 448 or 224, as the images have.
        scales: Number of scales, each half as large as the one before.
        top: K of the multiple-instance learning, as a share of the patches in (0, 1].
        references: N_r, number of reference images.
        steps: Training steps.
        batch_size: Images per step, a third of them labeled anomalous ones; at least 2.
        learning_rate: Adam's learning rate, which falls to a tenth after every 200 steps. Value of the authors' code,
            like the weight decay of 1e-5; the paper names 1e-3 and 1e-2.
        sigma: Standard deviation of the map's smoothing, in patches.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: Ding et al. 2022, section 3 and appendix B; batches, schedule and pseudo anomalies as in the authors' public
    code.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stage: int = 3
    image_size: int = 224
    scales: int = 2
    top: float = 0.1
    references: int = 5
    steps: int = 300
    batch_size: int = 12
    learning_rate: float = 2e-4
    sigma: float = 1.0
    _heads: Heads | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.scales, self.steps, self.references) < 1 or self.batch_size < 2:
            raise ZooError(
                "dra: expected scales, steps and references of at least 1 and a batch_size of at least 2, got "
                f"{self.scales}, {self.steps}, {self.references} and {self.batch_size}."
            )
        check_scales("dra", self.image_size, self.scales)
        if not (0 < self.top <= 1 and self.learning_rate > 0 and self.sigma >= 0):
            raise ZooError(
                "dra: expected top in (0, 1], learning_rate above 0 and sigma of at least 0, got "
                f"{self.top}, {self.learning_rate} and {self.sigma}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train backbone and heads, each by the deviation loss; see `Method.fit`."""
        images = training_images("dra", normal, labeled, self.image_size)
        good_count = max(1, 2 * self.batch_size // 3)
        rng = np.random.default_rng(self.seed)
        with seeded(self.seed) as generator, torch.inference_mode(False), torch.enable_grad():
            heads = self._build()
            good, bad = (draws(kind, generator) for kind in images)

            def good_or_pseudo(count: int) -> tuple[torch.Tensor, torch.Tensor]:
                """Good images, half of which become pseudo anomalies, and which they are."""
                kinds = torch.where(torch.rand(count, generator=generator) < PSEUDO_SHARE, PSEUDO, GOOD)
                batch = zip(good(count), kinds, strict=True)
                return torch.stack([pseudo_anomaly(i, rng) if kind == PSEUDO else i for i, kind in batch]), kinds

            def augmented(batch: torch.Tensor) -> torch.Tensor:
                return turned(batch.float() / 255, generator)

            def loss() -> torch.Tensor:
                batch, kinds = good_or_pseudo(good_count)
                seen = bad(self.batch_size - good_count)
                kinds = torch.cat([kinds, torch.full((len(seen),), SEEN)])
                references, _ = good_or_pseudo(self.references)
                features = heads.features(augmented(torch.cat([references, batch, seen])))
                mean = [scale[: self.references].mean(0) for scale in features]
                evidence = heads([scale[self.references :] for scale in features], mean)
                return heads_loss(evidence.scores(self.top), kinds, generator)

            train_scores(heads, loss, self.steps, self.learning_rate, progress)
            with torch.no_grad():
                features = heads.features(augmented(good_or_pseudo(self.references)[0]))
        heads.remember([scale.mean(0) for scale in features])
        self._heads = heads

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = sum of the scores of abnormality minus that of normality. See `Method.predict`.

        The map is the sum of the patch scores of the three abnormality heads. Source: section 3, on inference.
        """
        heads = require_fitted(self._heads, "dra")

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            evidence = heads(heads.features(to_batch([image], self.image_size)), heads.references)
            normality, *abnormality = evidence.scores(self.top)
            heat = torch.stack([joined_maps(grids)[0] for grids in evidence.abnormality]).sum(0)
            return float(sum(abnormality) - normality), heat

        return one_by_one(images, judge, self.sigma)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_heads": self._build()}

    def model_bytes(self) -> int:
        """The trained backbone, the heads and the mean features of the reference images."""
        return tensor_bytes(require_fitted(self._heads, "dra"))

    def _build(self) -> Heads:
        return Heads(Backbone(self.backbone, (self.stage,), self.weights), self.scales)


class Evidence(NamedTuple):
    """What the heads say of some images.

    Attributes:
        normality: g_n at each scale, (N,).
        abnormality: Of the heads of seen, pseudo and residual abnormality, the patch scores at each scale, (N, h, w).
    """

    normality: list[torch.Tensor]
    abnormality: tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]

    def scores(self, top: float) -> list[torch.Tensor]:
        """Scores (N,) of normality, seen, pseudo and residual abnormality; `top` as for `top_mean`."""
        return [torch.stack(self.normality).mean(0), *(top_mean(grids, top) for grids in self.abnormality)]


class Heads(nn.Module):
    """A backbone and the four heads on its features. Source: Ding et al. 2022, section 3.2 and appendix B.1.

    Args:
        backbone: With one stage.
        scales: Number of scales.
    """

    def __init__(self, backbone: Backbone, scales: int) -> None:
        super().__init__()
        channels = backbone.channels[0]
        self.backbone = backbone
        self.scales = scales
        self.normality = nn.Sequential(nn.Linear(channels, HOLISTIC_WIDTH), nn.ReLU(), nn.Linear(HOLISTIC_WIDTH, 1))
        self.seen = PatchScores(channels)
        self.pseudo = PatchScores(channels)
        self.residual = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), PatchScores(channels)
        )
        for scale in range(scales):
            self.register_buffer(f"reference{scale}", torch.empty(0))

    @property
    def references(self) -> list[torch.Tensor]:
        """M_r at each scale, (C, h, w)."""
        return [getattr(self, f"reference{scale}") for scale in range(self.scales)]

    def remember(self, references: Sequence[torch.Tensor]) -> None:
        """Keep the mean features of the reference images, (C, h, w) at each scale, for inspections."""
        for scale, mean in enumerate(references):
            setattr(self, f"reference{scale}", mean)

    def features(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, S, S) in 0..1 -> at each scale (N, C, h, w)."""
        return [self.backbone(smaller)[0] for smaller in pyramid(batch, self.scales)]

    def forward(self, features: Sequence[torch.Tensor], references: Sequence[torch.Tensor]) -> Evidence:
        """Judge features by the mean features of reference images. Source: eq. 3, 5, 7 and 9."""
        residuals = [reference - scale for scale, reference in zip(features, references, strict=True)]
        return Evidence(
            [self.normality(scale.mean((2, 3)))[:, 0].abs() for scale in features],
            (
                [self.seen(scale) for scale in features],
                [self.pseudo(scale) for scale in features],
                [self.residual(residual) for residual in residuals],
            ),
        )


def heads_loss(scores: Sequence[torch.Tensor], kinds: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Sum of the deviation losses of the four heads.

    Args:
        scores: (N,) each, of normality, seen, pseudo and residual abnormality.
        kinds: (N,), `GOOD`, `SEEN` or `PSEUDO`.
        generator: As for `deviation_loss`.

    Source: Ding et al. 2022, eq. 2, 5, 8 and 9: normality tells good images from all others; the heads of seen and
    pseudo abnormality learn from good images and from those of their own kind; the residual head from all.
    """
    normality, seen, pseudo, residual = scores
    good, without_pseudo, without_seen = kinds == GOOD, kinds != PSEUDO, kinds != SEEN
    return (
        deviation_loss(normality, good, generator)
        + deviation_loss(seen[without_pseudo], ~good[without_pseudo], generator)
        + deviation_loss(pseudo[without_seen], ~good[without_seen], generator)
        + deviation_loss(residual, ~good, generator)
    )


def pseudo_anomaly(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A rectangle of an image (3, S, S) uint8, in changed colors, pasted elsewhere into it; the paper's CutMix.

    Source: Ding et al. 2022, eq. 4; ranges as in the authors' public code, which are those of CutPaste.
    """
    return torch.as_tensor(cut_paste(image.permute(1, 2, 0).numpy(), rng, JITTER)).permute(2, 0, 1)
