"""AST: a normalizing flow maps good features to a Gaussian, a convolutional student learns to imitate it.

The flow can be undone, so what it has never seen must come out differently; the student, which is built otherwise, does
not follow it there. The distance between their outputs marks the anomalies.

Source: Rudolph, Wehrbein, Rosenhahn & Wandt 2023; values of hyper-parameters as in the authors' public code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.coupling import Flow, Inner, surprise
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import shuffled_batches, train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

REDUCTIONS = ("max", "mean")
WEIGHT_DECAY = 1e-5
# Kernel sizes of the flow's inner networks: of all blocks but the last, and of the last.
KERNEL, LAST_KERNEL = 3, 5
# The distances are enlarged to the image's size divided by this before their maximum is taken.
MAP_STRIDE = 4


@baseline(
    Card(
        name="ast",
        title="AST",
        paper="Rudolph, Wehrbein, Rosenhahn & Wandt 2023, Asymmetric Student-Teacher Networks for Industrial Anomaly "
        "Detection, WACV",
        year=2023,
        family="teacher-student",
        needs_internet=True,
        trains=True,
        weights="layer3 of ResNet18 (distilled by this package) at 256 pixels instead of ImageNet's EfficientNet-B5 at "
        "768; a narrower student and a number of steps that suit a few images on a CPU.",
        original=Original(
            options={
                "backbone": "tf_efficientnet_b5",
                "stage": 4,
                "image_size": 768,
                "width": 1024,
            },
            pretrained="ImageNet",
            lengths={"steps": "epochs"},
            departs=(
                "the end of EfficientNet-B5's last stage, three blocks after the paper's layer 36",
                "RGB only",
            ),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class AST:
    """Asymmetric student-teacher networks, on RGB images.

    Attributes:
        seed: Seed of everything random.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stage: Stage of the backbone whose features are used: of a ResNet, 3 is layer3 at stride 16.
        image_size: Both sides of the input, in pixels.
        blocks: Coupling blocks of the teacher.
        hidden: Channels of the hidden layer of their inner networks.
        clamp: Largest logarithm of the factor by which a coupling block scales a feature.
        encoding: Channels of the positional encoding that both networks get, a multiple of 4.
        width: Channels of the student.
        residuals: Residual blocks of the student.
        steps: Training steps, of the teacher and then of the student.
        batch_size: Images per step, at most.
        learning_rate: Adam's learning rate.
        reduction: How distances become the image's score: `max` is the paper's without a mask of the foreground, `mean`
            its other one.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stage: int = 3
    image_size: int = 256
    blocks: int = 4
    hidden: int = 64
    clamp: float = 1.9
    encoding: int = 32
    width: int = 128
    residuals: int = 4
    steps: int = 240
    batch_size: int = 8
    learning_rate: float = 2e-4
    reduction: str = "max"
    _backbone: Backbone = field(init=False, repr=False)
    _teacher: Flow | None = field(default=None, init=False, repr=False)
    _student: Student | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.blocks, self.hidden, self.width, self.residuals, self.steps, self.batch_size) < 1:
            raise ZooError(
                "ast: expected blocks, hidden, width, residuals, steps and batch_size of at least 1, got "
                f"{self.blocks}, {self.hidden}, {self.width}, {self.residuals}, {self.steps} and {self.batch_size}."
            )
        if self.clamp <= 0 or self.learning_rate <= 0:
            raise ZooError(f"ast: expected clamp and learning_rate above 0, got {self.clamp} and {self.learning_rate}.")
        if self.encoding < 4 or self.encoding % 4:
            raise ZooError(f"ast: expected an encoding of 4, 8, 12, ... channels, got {self.encoding}.")
        if self.reduction not in REDUCTIONS:
            raise ZooError(f"ast: expected a reduction among {', '.join(REDUCTIONS)}, got {self.reduction!r}.")
        with seeded(self.seed):
            self._backbone = Backbone(self.backbone, (self.stage,), self.weights)
        if self.image_size < 2 * self._backbone.strides[0]:
            raise ZooError(
                f"ast: expected an image_size of at least {2 * self._backbone.strides[0]}, got {self.image_size}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the teacher by likelihood, then the student by the teacher's outputs; see `Method.fit`."""
        images = resized(normal, self.image_size)
        with seeded(self.seed) as generator, torch.inference_mode(False), torch.enable_grad():
            # The backbone is frozen, so its features of each image are computed once.
            with torch.no_grad():
                features = torch.cat([self._backbone(image[None].float() / 255)[0] for image in images])
            code = position_code(self.encoding, *features.shape[2:])
            teacher, student = self._networks(generator)
            batches = shuffled_batches(len(images), self.batch_size, generator)

            def likelihood() -> torch.Tensor:
                batch = features[next(batches)]
                return surprise(*teacher(batch, code.expand(len(batch), -1, -1, -1))).mean()

            self._train(teacher, likelihood, "teacher", progress)
            with torch.no_grad():
                latents = torch.cat([teacher(one[None], code)[0] for one in features])

            def imitation() -> torch.Tensor:
                batch = next(batches)
                return distances(latents[batch], student(features[batch], code)).mean()

            self._train(student, imitation, "student", progress)
        self._teacher, self._student = teacher, student

    def _train(
        self, network: nn.Module, loss: Callable[[], torch.Tensor], stage: str, progress: Progress | None
    ) -> None:
        optimizer = torch.optim.Adam(network.parameters(), self.learning_rate, weight_decay=WEIGHT_DECAY)
        train_steps(loss, self.steps, [optimizer], progress=progress, stage=stage)
        network.requires_grad_(False).eval()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = maximum (or mean) of the distances between teacher and student. See `Method.predict`."""
        teacher, student = require_fitted(self._teacher, "ast"), require_fitted(self._student, "ast")

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            features = self._backbone(to_batch([image], self.image_size))[0]
            code = position_code(self.encoding, *features.shape[2:])
            grid = distances(teacher(features, code)[0], student(features, code))
            heat = F.interpolate(grid[:, None], self.image_size // MAP_STRIDE, mode="bicubic", align_corners=False)
            return float(heat.max() if self.reduction == "max" else grid.mean()), heat[0, 0]

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        teacher, student = self._networks(torch.Generator())
        return {"_backbone": self._backbone, "_teacher": teacher, "_student": student}

    def model_bytes(self) -> int:
        """The backbone, the teacher and the student."""
        return tensor_bytes(self._backbone, require_fitted(self._teacher, "ast"), require_fitted(self._student, "ast"))

    def _networks(self, generator: torch.Generator) -> tuple[Flow, Student]:
        channels = self._backbone.channels[0]
        kernels = [KERNEL] * (self.blocks - 1) + [LAST_KERNEL]
        inners = [_inner(self.hidden, kernel) for kernel in kernels]
        teacher = Flow(channels, inners, generator, self.clamp, self.encoding)
        return teacher, Student(channels, self.encoding, self.width, self.residuals)


class InnerNetwork(nn.Module):
    """Two convolutions and a learned factor, at first 0: a coupling block begins as the identity."""

    def __init__(self, inputs: int, outputs: int, hidden: int, kernel: int) -> None:
        super().__init__()
        settings: dict[str, Any] = {"padding": kernel // 2, "padding_mode": "replicate"}
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, hidden, kernel, **settings), nn.ReLU(), nn.Conv2d(hidden, outputs, kernel, **settings)
        )
        self.factor = nn.Parameter(torch.zeros(1))

    def forward(self, half: torch.Tensor) -> torch.Tensor:
        """(N, inputs, h, w) -> (N, outputs, h, w)."""
        return self.layers(half) * self.factor


def _inner(hidden: int, kernel: int) -> Inner:
    return lambda inputs, outputs: InnerNetwork(inputs, outputs, hidden, kernel)


class Student(nn.Module):
    """A convolutional network of residual blocks, which keeps the size of the maps.

    Args:
        channels: Number of features, in and out.
        encoding: Channels of the positional encoding.
        width: Channels in between.
        residuals: Number of residual blocks.
    """

    def __init__(self, channels: int, encoding: int, width: int, residuals: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels + encoding, width, 3, padding=1), nn.LeakyReLU())
        self.residuals = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU()),
                *(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU()),
            )
            for _ in range(residuals)
        )
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, features: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Features (N, C, h, w) and the encoding (1, encoding, h, w) -> (N, C, h, w)."""
        x = self.first(torch.cat([features, code.expand(len(features), -1, -1, -1)], 1))
        for residual in self.residuals:
            x = x + residual(x)
        y: torch.Tensor = self.last(x)
        return y


def distances(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the outputs at each position: (N, C, h, w) twice -> (N, h, w)."""
    return (teacher - student).square().mean(1)


def position_code(channels: int, height: int, width: int) -> torch.Tensor:
    """Sines and cosines of the column in the first half of the channels, of the row in the second.

    Args:
        channels: A multiple of 4.
        height: Rows.
        width: Columns.

    Returns:
        (1, channels, height, width).

    Source: Vaswani et al. 2017, section 3.5, in two dimensions.
    """
    half = channels // 2
    frequency = torch.exp(torch.arange(0, half, 2) * (-math.log(10_000) / half))

    def waves(count: int) -> torch.Tensor:
        """(half, count), sine and cosine in turn."""
        angle = frequency[:, None] * torch.arange(count)
        return torch.stack([angle.sin(), angle.cos()], 1).flatten(0, 1)

    columns = waves(width)[:, None, :].expand(-1, height, -1)
    rows = waves(height)[:, :, None].expand(-1, -1, width)
    return torch.cat([columns, rows])[None]
