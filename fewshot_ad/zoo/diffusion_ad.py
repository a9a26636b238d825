"""DiffusionAD: repair an image by one denoising step of a diffusion model, then mark the repaired pixels.

Source: Zhang, Wang, Zeng, Wu & Jiang 2025 (arXiv 2303.08730: one-step denoising, norm guidance, the noise loss of Eq. 9
that only good samples take part in); Ho, Jain & Abbeel 2020 (DDPM, Eq. 4: the forward process; linear noise schedule);
Lin et al. 2017 (focal loss). Settings that the paper leaves open are those of the authors' public code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.training.collage import collage
from fewshot_ad.zoo.components.diffusion_anomalies import synthetic_anomaly
from fewshot_ad.zoo.components.diffusion_unet import HEADS, NoiseUNet, SegmentationUNet
from fewshot_ad.zoo.components.memory import available_bytes, require_memory
from fewshot_ad.zoo.components.tensors import (
    one_by_one,
    require_images,
    resized,
    seeded,
    tensor_bytes,
    to_batch,
    unit_tensor,
)
from fewshot_ad.zoo.components.training import train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

TIMES = 1000
BETAS = (1e-4, 0.02)
SMALLEST_LARGE_TIME = 300  # Training draws small times below it and large times from it on.
FOCAL_BALANCE, FOCAL_POWER, FOCAL_WEIGHT = 0.5, 4, 5.0
COSINE_HALF_PERIOD = 10
TOP_PIXELS = 50
TEXTURES = 64
SIDE_STEP = 32


@baseline(
    Card(
        name="diffusionad",
        title="DiffusionAD",
        paper="Zhang, Wang, Zeng, Wu & Jiang 2025, DiffusionAD: Norm-guided One-step Denoising Diffusion for Anomaly "
        "Detection, IEEE TPAMI (arXiv 2303.08730)",
        year=2025,
        family="diffusion",
        needs_internet=False,
        trains=True,
        weights="None: trained from scratch, as published. The textures of synthetic anomalies are generated collages "
        "instead of the DTD images, and anomalies may lie anywhere, as no foreground is segmented.",
        original=Original(
            departs=(
                "textures of generated collages, not the Describable Textures Dataset",
                "anomalies anywhere, no foreground is segmented",
            )
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class DiffusionAD:
    """DiffusionAD with the published hyper-parameters.

    Attributes:
        seed: Seed of everything random.
        image_size: Side of the images in pixels, a multiple of 32.
        channels: Channels of the noise-predicting U-Net at its finest level, a multiple of 8; the segmentation U-Net
            has half as many.
        epochs: Passes over the good images, of at least one batch each.
        steps: Gradient steps instead of epochs.
        batch: Images per step, at least 2, drawn with replacement.
        learning_rate: Learning rate of the noise-predicting U-Net.
        segmentation_learning_rate: Highest learning rate of the segmentation U-Net.
        guidance: Weight of the guidance.
        small_time: Time step of the little noise at an inspection, 0..999.
        large_time: Time step of the much noise, above `small_time`.

    Raises:
        ZooError: A size, a number of channels or steps, or the times make no sense.
    """

    seed: int = 0
    image_size: int = 256
    channels: int = 128
    epochs: int = 3000
    steps: int | None = None
    batch: int = 16
    learning_rate: float = 1e-4
    segmentation_learning_rate: float = 1e-5
    guidance: float = 1.0
    small_time: int = 200
    large_time: int = 400
    _networks: tuple[Repair, SegmentationUNet] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.image_size < SIDE_STEP or self.image_size % SIDE_STEP:
            raise ZooError(f"diffusionad: expected image_size a multiple of {SIDE_STEP}, got {self.image_size}.")
        if self.channels < 2 * HEADS or self.channels % (2 * HEADS):
            raise ZooError(f"diffusionad: expected channels a multiple of {2 * HEADS}, got {self.channels}.")
        if self.batch < 2 or self.epochs < 1 or (self.steps is not None and self.steps < 1):
            raise ZooError(
                "diffusionad: expected a batch of 2 or more and 1 or more epochs and steps, got "
                f"batch={self.batch}, epochs={self.epochs}, steps={self.steps}."
            )
        if not 0 <= self.small_time < self.large_time < TIMES:
            raise ZooError(
                f"diffusionad: expected 0 <= small_time < large_time < {TIMES}, got {self.small_time} and "
                f"{self.large_time}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train both networks together; see `Method.fit`."""
        require_images(normal)
        require_memory("diffusionad", self._bytes(self.batch), self._what_takes_less())
        good = list(resized(normal, self.image_size).permute(0, 2, 3, 1).numpy())
        rng = np.random.default_rng(self.seed)
        steps = self.epochs * max(1, len(good) // self.batch) if self.steps is None else self.steps
        count = min(TEXTURES, steps * self.batch)
        textures = [collage(good, int(rng.integers(2**31)), self.image_size) for _ in range(count)]
        with seeded(self.seed):
            repair = Repair(NoiseUNet(self.image_size, self.channels), self.guidance)
            segmentation = SegmentationUNet(self.channels // 2)
            optimizers = [
                torch.optim.Adam(repair.parameters(), self.learning_rate),
                torch.optim.Adam(segmentation.parameters(), self.segmentation_learning_rate),
            ]
            # The authors step it on every iteration: the rate oscillates between its highest value and 0.
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizers[1], COSINE_HALF_PERIOD)

            def loss() -> torch.Tensor:
                return _loss(repair, segmentation, *self._samples(good, textures, rng))

            train_steps(loss, steps, optimizers, schedules=[cosine], progress=progress, stage="train")
        self._networks = (repair.eval(), segmentation.eval())

    def _bytes(self, batch: int) -> float:
        """Memory that training takes, fitted to the peaks of single steps of several sizes."""
        activations = 0.355e9 * batch * self.channels / 32 * (self.image_size / 128) ** 2
        return 0.8e9 + 0.6e9 * (self.channels / 128) ** 2 + activations

    def _what_takes_less(self) -> str:
        available = available_bytes() or 0
        fitting = [batch for batch in range(2, self.batch) if self._bytes(batch) <= available]
        if fitting:
            return f"Give batch={fitting[-1]}."
        return "Give a smaller image_size, such as 128, or fewer channels, such as 32."

    def _samples(
        self, good: Sequence[Uint8Array], textures: Sequence[Uint8Array], rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 3, S, S) in 0..1, half of them with an anomaly, and their masks (B, 1, S, S)."""
        images, masks = [], []
        for _ in range(self.batch):
            image = good[int(rng.integers(len(good)))]
            mask = np.zeros(image.shape[:2], bool)
            if rng.uniform() < 0.5:
                image, mask = synthetic_anomaly(image, textures, rng)
            images.append(image)
            masks.append(mask)
        return unit_tensor(np.stack(images)), torch.as_tensor(np.stack(masks))[:, None].float()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Image scores and maps in 0..1; see `Method.predict`."""
        repair, segmentation = require_fitted(self._networks, "diffusionad")
        times = tuple(torch.tensor([t]) for t in (self.small_time, self.large_time))

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            batch = to_batch([image], self.image_size)
            # The same noise for every image: its score must not depend on the images before it.
            generator = torch.Generator().manual_seed(self.seed)
            noises = tuple(torch.randn(batch.shape, generator=generator) for _ in times)
            heat = torch.sigmoid(segmentation(batch, repair(batch, times, noises)[0]))[0, 0]
            return float(heat.flatten().topk(TOP_PIXELS).values.mean()), heat

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        repair = Repair(NoiseUNet(self.image_size, self.channels), self.guidance)
        return {"_networks": (repair, SegmentationUNet(self.channels // 2))}

    def model_bytes(self) -> int:
        """Both networks."""
        return tensor_bytes(*require_fitted(self._networks, "diffusionad"))


def _loss(repair: Repair, segmentation: SegmentationUNet, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The noise loss of the good images, and the losses of the segmentation of all."""
    number = len(images)
    times = (
        torch.randint(0, SMALLEST_LARGE_TIME, (number,)),
        torch.randint(SMALLEST_LARGE_TIME, TIMES, (number,)),
    )
    noises = (torch.randn_like(images), torch.randn_like(images))
    repaired, noise_loss = repair(images, times, noises)
    normal = (masks.amax((1, 2, 3)) == 0).float()
    noise_loss = (noise_loss * normal).sum() / normal.sum().clamp(min=1)
    logits = segmentation(images, repaired)
    return noise_loss + FOCAL_WEIGHT * focal_loss(logits, masks) + F.smooth_l1_loss(torch.sigmoid(logits), masks)


def alpha_bars() -> torch.Tensor:
    """(1000,) float32: the share of an image's variance that is left at each time step, falling."""
    return torch.cumprod(1 - torch.linspace(*BETAS, TIMES, dtype=torch.float64), 0).float()


def add_noise(clean: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """The forward process (Ho et al. 2020, Eq. 4) of (N, 3, S, S), `alpha_bar` (N, 1, 1, 1)."""
    return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise


def remove_noise(noisy: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """The inverse of `add_noise`: the clean images in one step, if the noise is known."""
    return (noisy - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()


def guided_noise(
    noisy: torch.Tensor, noise: torch.Tensor, guide: torch.Tensor, alpha_bar: torch.Tensor, weight: float
) -> torch.Tensor:
    """Noise corrected so that the repaired image comes nearer to a guide.

    Args:
        noisy: (N, 3, S, S) images with little noise.
        noise: The noise that the network predicts for them.
        guide: The images repaired from much noise: without the anomaly, but without fine detail.
        alpha_bar: (N, 1, 1, 1) of the little noise.
        weight: Weight of the guidance; 0 leaves the noise as it is.
    """
    return noise - weight * (1 - alpha_bar).sqrt() * (add_noise(guide, noise, alpha_bar) - noisy)


def focal_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean binary focal loss (Lin et al. 2017, Eq. 5) of logits against 0 or 1."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (FOCAL_BALANCE * (1 - torch.exp(-entropy)) ** FOCAL_POWER * entropy).mean()


class Repair(nn.Module):
    """Norm-guided one-step denoising with a noise-predicting network."""

    def __init__(self, network: nn.Module, guidance: float) -> None:
        super().__init__()
        self.network = network
        self.guidance = guidance
        self.register_buffer("alpha_bars", alpha_bars(), persistent=False)

    def forward(
        self, images: torch.Tensor, times: tuple[torch.Tensor, torch.Tensor], noises: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Repair images.

        Args:
            images: (N, 3, S, S) in 0..1.
            times: A small and a large time step per image, (N,) int each.
            noises: The standard normal noise to add at either, (N, 3, S, S) each.

        Returns:
            The repaired images (N, 3, S, S) in -1..1, and the noise loss per image, (N,).
        """
        bars = [self.alpha_bars[t].view(-1, 1, 1, 1) for t in times]
        noisy = [add_noise(images, noise, bar) for noise, bar in zip(noises, bars, strict=True)]
        predicted = [self.network(x, t) for x, t in zip(noisy, times, strict=True)]
        loss = sum(((a - b) ** 2).mean((1, 2, 3)) for a, b in zip(predicted, noises, strict=True))
        guide = remove_noise(noisy[1], predicted[1], bars[1]).clamp(-1, 1)
        corrected = guided_noise(noisy[0], predicted[0], guide, bars[0], self.guidance)
        return remove_noise(noisy[0], corrected, bars[0]).clamp(-1, 1), loss
