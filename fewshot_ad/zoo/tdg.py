"""TDG (HTDG): patch discriminators that name the transformation of an image, from a pyramid of generators.

At every scale, coarse to fine, a generator makes images like the few good ones, and a discriminator names, patch by
patch, which of M transformations was applied to a real image, or that the image is fake. Patches of a new image for
which it is uncertain are unlike the good ones.

Source: Sheynin, Benaim & Wolf 2021: Sec. 3.1 (generators, transformations), Sec. 3.3 (defects by the least certain
patches), supplement Sec. 1 (the 54 transformations); schedule and sizes as in the authors' public configuration. Their
discriminators are trained by cross-entropy over M + 1 classes, the last of them "fake", without a gradient penalty.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.curves import draw
from fewshot_ad.zoo.components.tdg_transformations import SHIFT, Transformation, published_transformations
from fewshot_ad.zoo.components.tensors import one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import descend
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

LAYERS = 5
# Training holds all views of all images: about 0.7 GB per image with the published settings.
MAX_SHOTS = 16
BORDER = LAYERS  # Pixels that unpadded 3 x 3 layers lose on each side; patches are 2 * LAYERS + 1 = 11 pixels wide.
INNER_STEPS = 3
MILESTONES = (500, 1000)  # Steps after which the discriminator's and the generator's learning rates fall to a tenth.


@baseline(
    Card(
        name="tdg",
        title="TDG (HTDG)",
        paper="Sheynin, Benaim & Wolf 2021, A Hierarchical Transformation-Discriminating Generative Model for Few Shot "
        "Anomaly Detection, ICCV (arXiv 2104.14535)",
        year=2021,
        family="generative",
        needs_internet=False,
        trains=True,
        weights="None: trained from scratch on the images, as published. Scores are not scaled by the test set's "
        "own range, which the authors' evaluation also tries; maps average over transformations and scales.",
        original=Original(
            departs=("maps are means over transformations and scales", "scores as they are, not scaled by the test set")
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class TDG:
    """TDG with the published hyper-parameters.

    Attributes:
        seed: Seed of everything random.
        image_size: Side of the finest scale in pixels.
        coarsest: Side of the coarsest scale in pixels, at least 12.
        scales: Number of scales, spaced evenly on a logarithmic axis.
        channels: Channels of a layer at the first four scales; twice as many at the next four, then four times as many.
        steps: Iterations per scale, of three updates of either network.
        transformations: Number of the published transformations that are used, from the first: 2 to 54.
        learning_rate: Learning rate of both networks.
        reconstruction: Weight of the reconstruction loss.
        noise: Strength of the noise, as a share of the detail that coarser scales leave out.
        fraction: Share of the patches, the least certain, that make the image score; 0.01 to 0.1 by the authors.

    Raises:
        ZooError: The scales, transformations or steps make no sense.
    """

    seed: int = 0
    image_size: int = 64
    coarsest: int = 25
    scales: int = 5
    channels: int = 32
    steps: int = 5000
    transformations: int = 54
    learning_rate: float = 5e-4
    reconstruction: float = 100.0
    noise: float = 0.1
    fraction: float = 0.1
    _sides: list[int] = field(init=False, repr=False)
    _transformations: Sequence[Transformation] = field(init=False, repr=False)
    _discriminators: list[nn.Sequential] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        published = published_transformations()
        if not 2 <= self.transformations <= len(published):
            raise ZooError(f"tdg: expected 2 to {len(published)} transformations, got {self.transformations}.")
        if self.scales < 1 or self.steps < 1 or not 2 * BORDER + 2 <= self.coarsest <= self.image_size:
            raise ZooError(
                f"tdg: expected scales and steps of 1 or more and {2 * BORDER + 2} <= coarsest <= image_size, got "
                f"scales={self.scales}, steps={self.steps}, coarsest={self.coarsest}, image_size={self.image_size}."
            )
        shares = [1.0] if self.scales == 1 else [i / (self.scales - 1) for i in range(self.scales)]
        self._sides = [round(self.coarsest * (self.image_size / self.coarsest) ** share) for share in shares]
        self._transformations = published[: self.transformations]

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the scales, coarse to fine; see `Method.fit`."""
        if len(normal) > MAX_SHOTS:
            raise ZooError(
                f"tdg: expected at most {MAX_SHOTS} images, of which it holds {self.transformations} views "
                f"each, got {len(normal)}. Give fewer; it is a method for one or a few."
            )
        images = resized(normal, self.image_size).float() / 127.5 - 1
        scales: list[_Scale] = []
        with seeded(self.seed):
            for side in self._sides:
                scales.append(self._train(scales, _resize(images, side), progress))
        self._discriminators = [scale.discriminator for scale in scales]

    def _train(self, scales: list[_Scale], real: torch.Tensor, progress: Progress | None) -> _Scale:
        """Train the next scale on images (N, 3, S, S) in -1..1."""
        number, side = len(real), real.shape[-1]
        count = self.transformations
        channels = self._channels(len(scales))
        generator, discriminator = Generator(channels), _convolutions(3, count + 1, channels)
        if scales and scales[-1].channels == channels:
            generator.load_state_dict(scales[-1].generator.state_dict())
            discriminator.load_state_dict(scales[-1].discriminator.state_dict())
        fixed = torch.randn(1, 1, side, side).expand(number, 3, side, side)
        rebuilt = _coarse(scales, number, side, fixed=True)
        strength = torch.ones(number, 1, 1, 1)
        if scales:
            # As much new detail as the coarser scales leave out.
            strength = self.noise * (real - rebuilt).abs().mean((1, 2, 3), keepdim=True)
        optimizers = [
            torch.optim.Adam(network.parameters(), self.learning_rate, betas=(0.5, 0.999))
            for network in (discriminator, generator)
        ]
        schedules = [
            torch.optim.lr_scheduler.MultiStepLR(optimizer, [milestone], 0.1)
            for optimizer, milestone in zip(optimizers, MILESTONES, strict=True)
        ]
        real_views, names = self._transformed(real), torch.arange(count).repeat_interleave(number)

        def error(views: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            logits = discriminator(views)
            return F.cross_entropy(logits, classes.view(-1, 1, 1).expand(-1, *logits.shape[-2:]))

        # Not `train_steps`: two networks take turns, and one noise serves all updates of a step.
        for step in range(self.steps):
            noise = strength * _random_noise(number, side, not scales)
            discriminator.requires_grad_(True)
            for _ in range(INNER_STEPS):
                coarse = _coarse(scales, number, side, fixed=False)
                with torch.no_grad():
                    fake = self._transformed(generator(noise + coarse, coarse))
                optimizers[0].zero_grad()
                # One after the other: the two graphs together would take twice the memory.
                error(real_views, names).backward()
                error(fake, torch.full_like(names, count)).backward()
                optimizers[0].step()
            discriminator.requires_grad_(False)
            for _ in range(INNER_STEPS):
                adversarial = error(self._transformed(generator(noise + coarse, coarse)), names)
                difference = F.mse_loss(generator(strength * fixed + rebuilt, rebuilt), real)
                descend(adversarial + self.reconstruction * difference, optimizers[1:])
            losses = {"adversarial": adversarial, "reconstruction": difference}
            draw({f"scale {len(scales)}/{name}": float(value.detach()) for name, value in losses.items()}, step)
            for schedule in schedules:
                schedule.step()
            if progress is not None:
                progress("train", len(scales) * self.steps + step + 1, self.scales * self.steps)
        generator.eval().requires_grad_(False)
        discriminator.eval()
        return _Scale(side, channels, generator, discriminator, fixed, strength)

    def _transformed(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) -> (M N, 3, S, S), transformation after transformation."""
        return torch.cat([transformation(batch) for transformation in self._transformations])

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Image scores in 0..1 and maps in nats; see `Method.predict`."""
        discriminators = require_fitted(self._discriminators, "tdg")
        return one_by_one(images, lambda image: self._judge(discriminators, image))

    def _judge(self, discriminators: Sequence[nn.Sequential], image: Uint8Array) -> tuple[float, torch.Tensor]:
        """Score: mean doubt on the least certain patches. Map: mean -log p of the right transformation."""
        batch = to_batch([image], self.image_size) * 2 - 1
        count, scores, heat = self.transformations, [], torch.zeros(self.image_size, self.image_size)
        for side, discriminator in zip(self._sides, discriminators, strict=True):
            logits = discriminator(self._transformed(_resize(batch, side)))
            # "Fake" takes no part: a defect need not look generated.
            surprise = -torch.log_softmax(logits[:, :count], 1)[torch.arange(count), torch.arange(count)]
            certainty = torch.exp(-surprise).flatten(1).sort(1).values
            least = max(1, int(self.fraction * certainty.shape[1]))
            scores.append(1 - float(certainty[:, :least].mean()))
            back = [t.undo(s, int(SHIFT * side)) for t, s in zip(self._transformations, surprise, strict=True)]
            total, weight = torch.stack(back).sum(0)
            mean = F.pad((total / weight)[None, None], (BORDER,) * 4, mode="replicate")
            heat += _resize(mean, self.image_size)[0, 0] / self.scales
        return sum(scores) / len(scores), heat

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        widths = [self._channels(number) for number in range(self.scales)]
        return {"_discriminators": [_convolutions(3, self.transformations + 1, width) for width in widths]}

    def _channels(self, number: int) -> int:
        """Channels of the scale of some number, the coarsest being 0."""
        return self.channels * min(2 ** (number // 4), 4)

    def model_bytes(self) -> int:
        """The discriminators: an inspection generates nothing."""
        return tensor_bytes(*require_fitted(self._discriminators, "tdg"))


def _convolutions(inputs: int, outputs: int, channels: int) -> nn.Sequential:
    """Five 3 x 3 layers without padding, batch norm and leaky ReLU between them; initialized as GANs are."""
    widths = [inputs, *[channels] * (LAYERS - 1)]
    blocks: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        blocks += [nn.Conv2d(before, after, 3), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
    network = nn.Sequential(*blocks, nn.Conv2d(channels, outputs, 3))
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
    return network


class Generator(nn.Module):
    """Adds detail to images from noise; its input says which training image is to come out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.network = _convolutions(4, 3, channels)

    def forward(self, noisy: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Coarse images with and without noise, (N, 3, S, S) in about -1..1 each -> finer ones."""
        padded = F.pad(noisy, (BORDER,) * 4)
        # The index of the image is one more channel, over the border too.
        number = torch.arange(len(noisy), dtype=noisy.dtype).view(-1, 1, 1, 1).expand(-1, 1, *padded.shape[-2:])
        return torch.tanh(self.network(torch.cat([padded, number], 1))) + coarse


@dataclass(frozen=True, eq=False)
class _Scale:
    """A trained scale: its networks, the noise (N, 3, S, S) from which it reconstructs the images, and its strength."""

    side: int
    channels: int
    generator: Generator
    discriminator: nn.Sequential
    noise: torch.Tensor
    strength: torch.Tensor


def _resize(batch: torch.Tensor, side: int) -> torch.Tensor:
    if batch.shape[-1] == side:
        return batch
    return F.interpolate(batch, (side, side), mode="bicubic", align_corners=False, antialias=batch.shape[-1] > side)


def _random_noise(number: int, side: int, first: bool) -> torch.Tensor:
    """Noise (N, 3, S, S); at the coarsest scale the same in all colors."""
    return torch.randn(number, 1 if first else 3, side, side).expand(number, 3, side, side)


def _coarse(scales: Sequence[_Scale], number: int, side: int, fixed: bool) -> torch.Tensor:
    """Images (number, 3, side, side) that the scales so far generate, from their fixed noise or from new noise."""
    batch = torch.zeros(number, 3, scales[0].side if scales else side, scales[0].side if scales else side)
    for i, scale in enumerate(scales):
        batch = _resize(batch, scale.side)
        noise = scale.noise if fixed else _random_noise(number, scale.side, i == 0)
        batch = scale.generator(scale.strength * noise + batch, batch)
    return _resize(batch, side)
