"""NSA: a network learns to mark patches of other images that were blended in without a seam.

Source: Schlüter, Tan, Hou & Kainz 2022: Sec. 3 (synthetic anomalies, and binary, continuous and logistic labels);
network, schedule and the settings of each product as in the authors' public code.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.image_jitter import moved
from fewshot_ad.zoo.components.poisson_patches import PoissonPatches
from fewshot_ad.zoo.components.residual_blocks import ResidualBlock
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, resized, seeded, tensor_bytes, to_batch, unit_tensor
from fewshot_ad.zoo.components.training import train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

LABELS = ("binary", "continuous", "logistic")
STAGE, STRIDE = 3, 16  # Stage of the backbone that the network's last stage and its decoder follow.
SIDE_STEP = 2 * STRIDE
LAST_RATE = 1e-6


@baseline(
    Card(
        name="nsa",
        title="NSA",
        paper="Schlüter, Tan, Hou & Kainz 2022, Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and "
        "Localization, ECCV (arXiv 2109.15222)",
        year=2022,
        family="synthetic anomalies",
        needs_internet=False,
        trains=True,
        weights="ResNet18 distilled from EfficientNet-Lite as the start of the encoder's first three stages, where the "
        "paper starts from random weights (weights='random'); few and small steps that suit a few images on a CPU. "
        "Settings that the paper has for each product (background, steepness of the labels, mixed gradients for "
        "textures, turns for parts that are not aligned) are options here, with one default for all.",
        original=Original(
            options={"weights": "random", "steps": 1280, "batch_size": 64},
            unless={"weights": "starts from distilled weights"},
            departs=(
                "the whole image, no center crop",
                "differences smoothed over a square, not a disk",
            ),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class NSA:
    """Natural Synthetic Anomalies.

    Attributes:
        seed: Seed of everything random.
        backbone: Encoder, with a stage of index 3 at stride 16, see `tensors.Backbone`.
        weights: See `tensors.Backbone`; `random` to train from scratch.
        image_size: Both sides of the input in pixels, a multiple of 32.
        labels: What the network learns to give at each pixel: `binary`, whether a patch changed it; `continuous`, by
            how much, in gray levels; or `logistic`, the latter bounded to 0..1 by a logistic function.
        logistic: Steepness k and midpoint x0 of that function, per gray level and in gray levels. The authors set
            them per product, to 1/12 and 24 up to 1 and 3.
        patches: Most patches in an image; 3 for objects and 4 for textures, with few exceptions.
        scales: Least and largest scale of a patch; 0.5 and 2 for textures.
        mixed_gradients: Take the stronger gradient at each pixel, as published for textures, instead of the patch's.
        background: Brightness of the background and the largest difference from it that still is background, in gray
            levels, such as (200, 60) for bottles; None if patches may come from and go to any place.
        least_object: Share of a patch that must show the object, if there is a background; published: 0.25 to 0.7.
        least_overlap: Share of the object in a patch that must come to lie on the object.
        rotation: Largest random turn of the training images in degrees; 5 for parts that are not aligned, else 0.
        shift: Largest random shift of the training images as a share of their side; 3 of 224 pixels.
        steps: Training steps; published: 320 epochs (560 for parts that are not aligned), of 4 for 209 bottles.
        batch_size: Images per step, drawn with replacement; at least 2.
        learning_rate: Adam's learning rate, which falls to 1e-6 along half a cosine.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    image_size: int = 224
    labels: Literal["binary", "continuous", "logistic"] = "logistic"
    logistic: tuple[float, float] = (1 / 6, 15.0)
    patches: int = 3
    scales: tuple[float, float] = (0.7, 1.3)
    mixed_gradients: bool = False
    background: tuple[int, int] | None = None
    least_object: float = 0.5
    least_overlap: float = 0.25
    rotation: float = 5.0
    shift: float = 3 / 224
    steps: int = 240
    batch_size: int = 8
    learning_rate: float = 1e-3
    _start: Localizer = field(init=False, repr=False)
    _network: Localizer | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise ZooError(f"nsa: expected labels to be one of {', '.join(LABELS)}, got {self.labels!r}.")
        if self.image_size < SIDE_STEP or self.image_size % SIDE_STEP:
            raise ZooError(f"nsa: expected image_size a multiple of {SIDE_STEP}, got {self.image_size}.")
        if self.steps < 1 or self.patches < 1 or self.batch_size < 2 or self.learning_rate <= 0:
            raise ZooError(
                "nsa: expected steps and patches of at least 1, a batch_size of at least 2 and a learning_rate above "
                f"0, got {self.steps}, {self.patches}, {self.batch_size} and {self.learning_rate}."
            )
        if not 0 < self.scales[0] <= self.scales[1] or self.logistic[0] <= 0:
            raise ZooError(
                "nsa: expected two ascending scales above 0 and a steepness above 0, got "
                f"{self.scales} and {self.logistic[0]}."
            )
        if not 0 <= self.least_object < 1 or not 0 <= self.least_overlap < 1:
            raise ZooError(
                "nsa: expected least_object and least_overlap of 0 to below 1, got "
                f"{self.least_object} and {self.least_overlap}."
            )
        if not 0 <= self.rotation <= 180 or not 0 <= self.shift < 0.5:
            raise ZooError(
                f"nsa: expected rotation of 0 to 180 and shift of 0 to below 0.5, got {self.rotation} and {self.shift}."
            )
        with seeded(self.seed):
            backbone = Backbone(self.backbone, (STAGE,), self.weights)
            if backbone.strides != (STRIDE,):
                raise ZooError(
                    f"nsa: expected a backbone whose stage {STAGE} has stride {STRIDE}, got {self.backbone} with "
                    f"stride {backbone.strides[0]}."
                )
            self._start = Localizer(backbone)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the network on images with blended patches; see `Method.fit`."""
        images = list(resized(normal, self.image_size).permute(0, 2, 3, 1).numpy())
        rng = np.random.default_rng(self.seed)
        with torch.inference_mode(False), torch.enable_grad():
            network = copy.deepcopy(self._start).requires_grad_(True).train()

            def loss() -> torch.Tensor:
                batch, labels = self._samples(images, rng)
                output = network(batch)
                if self.labels == "continuous":
                    return F.mse_loss(F.relu(output), labels)
                return F.binary_cross_entropy_with_logits(output, labels)

            optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps, LAST_RATE)
            train_steps(loss, self.steps, [optimizer], schedules=[cosine], progress=progress)
        self._network = network.requires_grad_(False).eval()

    def _samples(self, images: Sequence[Uint8Array], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Images with patches (B, 3, S, S) in 0..1, and their labels (B, 1, S, S)."""
        patches = PoissonPatches(
            patches=self.patches,
            scales=self.scales,
            mixed_gradients=self.mixed_gradients,
            background=self.background,
            least_object=self.least_object,
            least_overlap=self.least_overlap,
        )
        blended, labels = [], []
        for _ in range(self.batch_size):
            image, source = (
                moved(images[int(i)], rng, self.shift, self.rotation) for i in rng.integers(len(images), size=2)
            )
            image, difference = patches.blend(image, source, rng)
            blended.append(image)
            labels.append(label(difference, self.labels, self.logistic))
        return unit_tensor(np.stack(blended)), torch.as_tensor(np.stack(labels))[:, None]

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Maps in 0..1, or gray levels of `continuous` labels; the score is the map's mean. See `Method.predict`."""
        network = require_fitted(self._network, "nsa")
        bounded = F.relu if self.labels == "continuous" else torch.sigmoid

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            heat = bounded(network(to_batch([image], self.image_size)))[0, 0]
            return float(heat.mean()), heat

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_network": copy.deepcopy(self._start)}

    def model_bytes(self) -> int:
        """The network."""
        return tensor_bytes(require_fitted(self._network, "nsa"))


def label(difference: Float32Array, kind: str, logistic: tuple[float, float]) -> Float32Array:
    """What the network is to give.

    Args:
        difference: (H, W) difference that patches make, in gray levels, 0 where none is visible.
        kind: One of `LABELS`.
        logistic: Steepness and midpoint of the logistic function.

    Returns:
        (H, W) float32.

    Source: Schlüter et al. 2022, Sec. 3.
    """
    if kind == "continuous":
        return difference
    changed = (difference > 0).astype(np.float32)
    if kind == "binary":
        return changed
    steepness, midpoint = logistic
    return changed / (1 + np.exp(-steepness * (difference - midpoint)))


class Localizer(nn.Module):
    """A ResNet18 whose last stage is narrowed and brought back to the image's resolution.

    Args:
        backbone: Its first three stages.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.encoder = backbone
        self.decoder = nn.Sequential(
            ResidualBlock(backbone.channels[0], 512, 0.5),
            ResidualBlock(512, 512),
            nn.Conv2d(512, 256, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(256, 128, 1, bias=False),
            nn.ReLU(),
            ResidualBlock(128, 64, 2),
            ResidualBlock(64, 32, 2),
            ResidualBlock(32, 16, 2),
            nn.UpsamplingBilinear2d(scale_factor=2),
            nn.ConvTranspose2d(16, 1, 7, 2, 3, output_padding=1, bias=False),
        )

    def train(self, mode: bool = True) -> Localizer:
        """The encoder learns too, although a `Backbone` by itself stays in evaluation mode."""
        super().train(mode)
        self.encoder.network.train(mode)
        return self

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in 0..1 -> (N, 1, S, S), before the last activation."""
        return self.decoder(self.encoder(batch)[0])
