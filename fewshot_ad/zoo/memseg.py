"""MemSeg: a segmentation network sees, beside an image's features, how they differ from the most alike good image's.

Source: Yang, Wu, Liu & Feng 2022 (arXiv 2205.00908): Sec. 3.2 (simulated anomalies), 3.3 (memory, differences, spatial
attention), 3.4 (fusion), 3.5 (losses). Layers and schedule that the paper leaves open are those of a public
re-implementation (github.com/TooTouch/MemSeg). Coordinate attention: Hou, Zhou & Feng 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.training.collage import collage
from fewshot_ad.zoo.components.diffusion_anomalies import changed, perlin_mask
from fewshot_ad.zoo.components.image_jitter import moved
from fewshot_ad.zoo.components.memory_segmentation import MemorySegmentation
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, resized, seeded, tensor_bytes, to_batch, unit_tensor
from fewshot_ad.zoo.components.training import train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

SIDE_STEP = 32
STAGES, STRIDES = (0, 1, 2, 3), (2, 4, 8, 16)
TEXTURES = 64
GRID = (4, 8)
OPACITY = (0.15, 1.0)
L1_WEIGHT, FOCAL_WEIGHT, FOCAL_POWER = 0.6, 0.4, 4
WARM_UP, LAST_RATE = 0.1, 1 / 30  # Share of the steps; share of the learning rate that is left at the end.
TOP = 100 / 256**2  # Share of the pixels, the highest, that make the score.


@baseline(
    Card(
        name="memseg",
        title="MemSeg",
        paper="Yang, Wu, Liu & Feng 2022, MemSeg: A Semi-Supervised Method for Image Surface Defect Detection Using "
        "Differences and Commonalities, Engineering Applications of Artificial Intelligence (arXiv 2205.00908)",
        year=2022,
        family="synthetic anomalies",
        needs_internet=True,
        trains=True,
        weights="ResNet18 distilled from EfficientNet-Lite instead of ImageNet's, up to its third block; the fourth, "
        "which is trained, starts from random weights. The textures of simulated anomalies are generated collages "
        "instead of the DTD images, and anomalies may lie anywhere, as no foreground is segmented. Training images are "
        "moved a little and compared with the memory of other images only, as with a few images all are in the memory. "
        "Small images and few steps, which suit a CPU.",
        original=Original(
            options={"image_size": 256, "steps": 5000, "shift": 0.0, "rotation": 0.0},
            pretrained="ImageNet",
            departs=(
                "the fourth block starts from random weights",
                "textures of generated collages, not the Describable Textures Dataset",
                "anomalies anywhere, no foreground is segmented",
                "a training image is not compared with itself",
                "the schedule of a re-implementation",
            ),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class MemSeg:
    """MemSeg.

    Attributes:
        seed: Seed of everything random.
        backbone: Encoder, with stages 0 to 3 at strides 2, 4, 8 and 16, see `tensors.Backbone`; they stay frozen.
        weights: See `tensors.Backbone`.
        image_size: Both sides of the input in pixels, a multiple of 32.
        memory: Good images in the memory, at most, drawn at random.
        shift: Largest random shift of the training images, as a share of their side; not in the paper.
        rotation: Largest random turn of the training images in degrees; not in the paper.
        steps: Training steps.
        batch_size: Images per step, at least 2, drawn with replacement: half of them good, the others with an anomaly.
        learning_rate: Highest learning rate of AdamW, after a tenth of the steps; it falls to a thirtieth of it along
            half a cosine.
        weight_decay: AdamW's weight decay.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    image_size: int = 128
    memory: int = 30
    shift: float = 0.02
    rotation: float = 5.0
    steps: int = 150
    batch_size: int = 8
    learning_rate: float = 3e-3
    weight_decay: float = 5e-4
    _encoder: Backbone = field(init=False, repr=False)
    _network: MemorySegmentation | None = field(default=None, init=False, repr=False)
    _memory: tuple[torch.Tensor, ...] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.image_size < SIDE_STEP or self.image_size % SIDE_STEP:
            raise ZooError(f"memseg: expected image_size a multiple of {SIDE_STEP}, got {self.image_size}.")
        if min(self.memory, self.steps) < 1 or self.batch_size < 2:
            raise ZooError(
                "memseg: expected memory and steps of at least 1 and a batch_size of at least 2, got "
                f"{self.memory}, {self.steps} and {self.batch_size}."
            )
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise ZooError(
                "memseg: expected a learning_rate above 0 and a weight_decay of at least 0, got "
                f"{self.learning_rate} and {self.weight_decay}."
            )
        if not 0 <= self.shift < 0.5 or not 0 <= self.rotation <= 180:
            raise ZooError(
                "memseg: expected shift of 0 to below 0.5 and rotation of 0 to 180, got "
                f"{self.shift} and {self.rotation}."
            )
        with seeded(self.seed):
            self._encoder = Backbone(self.backbone, STAGES, self.weights)
        if self._encoder.strides != STRIDES:
            raise ZooError(
                f"memseg: expected a backbone whose first stages have strides {STRIDES}, got {self.backbone} with "
                f"{self._encoder.strides}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Fill the memory and train the network on simulated anomalies; see `Method.fit`."""
        images = list(resized(normal, self.image_size).permute(0, 2, 3, 1).numpy())
        rng = np.random.default_rng(self.seed)
        # A quarter of the samples show a texture, half of those with an anomaly.
        textures = [
            collage(images, int(rng.integers(2**31)), self.image_size)
            for _ in range(min(TEXTURES, math.ceil(self.steps * self.batch_size / 4)))
        ]
        kept = rng.permutation(len(images))[: self.memory]
        with seeded(self.seed), torch.inference_mode(False), torch.enable_grad():
            network = MemorySegmentation(self._encoder.channels)
            memory = self._features(unit_tensor(np.stack([images[int(i)] for i in kept])))[1:]

            def loss() -> torch.Tensor:
                drawn = rng.integers(len(images), size=self.batch_size)
                batch, masks = self._samples([images[int(i)] for i in drawn], textures, rng)
                own = torch.as_tensor(drawn[:, None] == kept[None])
                return segmentation_loss(network(self._features(batch), memory, own), masks)

            optimizer = torch.optim.AdamW(network.parameters(), self.learning_rate, weight_decay=self.weight_decay)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, self.steps))
            train_steps(loss, self.steps, [optimizer], schedules=[schedule], progress=progress)
        self._network, self._memory = network.requires_grad_(False).eval(), memory

    def _samples(
        self, good: Sequence[Uint8Array], textures: Sequence[Uint8Array], rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Moved images (B, 3, S, S) in 0..1, the second half with an anomaly, and their masks (B, 1, S, S)."""
        images, masks = [], []
        for number, original in enumerate(good):
            image, mask = moved(original, rng, self.shift, self.rotation), np.zeros(original.shape[:2], bool)
            if number >= len(good) // 2:
                mask = perlin_mask(self.image_size, rng)
                texture = textures[int(rng.integers(len(textures)))]
                source = texture if rng.uniform() < 0.5 else disordered(changed(image, rng), rng)
                image = blended(image, source, mask, float(rng.uniform(*OPACITY)))
            images.append(image)
            masks.append(mask)
        return unit_tensor(np.stack(images)), torch.as_tensor(np.stack(masks))[:, None].float()

    def _features(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return tuple(self._encoder(batch))

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Maps in 0..1; the score is the mean of the highest pixels. See `Method.predict`."""
        network, memory = require_fitted(self._network, "memseg"), require_fitted(self._memory, "memseg")
        count = max(1, round(TOP * self.image_size**2))

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            features = self._features(to_batch([image], self.image_size))
            heat = torch.sigmoid(network(features, memory))[0, 0]
            return float(heat.flatten().topk(count).values.mean()), heat

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        network = MemorySegmentation(self._encoder.channels)
        return {"_encoder": self._encoder, "_network": network, "_memory": None}

    def model_bytes(self) -> int:
        """Both networks and the memory."""
        return tensor_bytes(
            self._encoder, require_fitted(self._network, "memseg"), *require_fitted(self._memory, "memseg")
        )


def disordered(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    """Cut an image (S, S, 3) into 4 x 8 tiles that change places; S is a multiple of 8."""
    (rows, columns), side = GRID, image.shape[0]
    tiles = image.reshape(rows, side // rows, columns, side // columns, 3).transpose(0, 2, 1, 3, 4)
    tiles = rng.permutation(tiles.reshape(-1, *tiles.shape[2:])).reshape(tiles.shape)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4).reshape(image.shape))


def blended(image: Uint8Array, source: Uint8Array, mask: np.ndarray, opacity: float) -> Uint8Array:
    """An image (S, S, 3) over which another lies, with an opacity in 0..1, where a mask (S, S) is true.

    Source: Yang et al. 2022, Sec. 3.2.
    """
    mix = np.rint(opacity * source.astype(np.float32) + (1 - opacity) * image.astype(np.float32)).astype(np.uint8)
    return np.where(mask[..., None], mix, image)


def segmentation_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Weighted sum of the absolute error and the focal loss, of logits against masks of 0 and 1.

    Source: Yang et al. 2022, Sec. 3.5; Lin et al. 2017 (focal loss).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    focal = ((1 - torch.exp(-entropy)) ** FOCAL_POWER * entropy).mean()
    return L1_WEIGHT * F.l1_loss(torch.sigmoid(logits), masks) + FOCAL_WEIGHT * focal


def rate(step: int, steps: int) -> float:
    """Share of the highest learning rate at a step: a linear rise, then half a cosine down to `LAST_RATE`."""
    rise = round(WARM_UP * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    passed = (step - rise) / max(1, steps - rise)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * passed)) / 2
