"""TDG (HTDG): patch discriminators that name the transformation of an image, from a pyramid of generators.

At every scale, coarse to fine, a generator makes images like the few given ones, and a discriminator tells, patch
by patch, which of M transformations was applied to a real image, or that it is a fake. Where it cannot tell on a
new image, that is unlike the good ones.

Source: Sheynin, Benaim & Wolf 2021: Sec. 3.1 (generators, transformations), Sec. 3.3 (defects by the least certain
patches), supplement Sec. 1 (the 54 transformations); schedule and sizes as in the authors' public configuration. Their
discriminators are trained by cross-entropy over M + 1 classes, the last of them "fake", without a gradient penalty.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.tdg_transformations import SHIFT, Transformation, published_transformations
from fewshot_ad.zoo.components.tensors import one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Predictions, baseline

LAYERS = 5
# Training holds all views of all images: about 0.7 GB an image with the published settings.
MAX_SHOTS = 16
BORDER = LAYERS  # What unpadded 3 x 3 layers lose on each side; patches are 2 * LAYERS + 1 = 11 pixels wide.
INNER_STEPS = 3
MILESTONES = (500, 1000)  # Steps after which the discriminator's and the generator's learning rates fall to a tenth.


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
    """Adds detail to images from noise, and knows which of the training images is meant."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.network = _convolutions(4, 3, channels)

    def forward(self, noisy: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Coarse images with and without noise, (N, 3, S, S) in about -1..1 each -> finer ones."""
        padded = F.pad(noisy, (BORDER,) * 4)
        # The number of the image is a channel of its own, over the border too.
        number = torch.arange(len(noisy), dtype=noisy.dtype).view(-1, 1, 1, 1).expand(-1, 1, *padded.shape[-2:])
        return torch.tanh(self.network(torch.cat([padded, number], 1))) + coarse


@dataclass(frozen=True, eq=False)
class _Scale:
    """A trained scale: its networks, the noise (N, 3, S, S) that gives the images back, and its strength."""

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
    """What the scales so far make, at the side (pixels) of the next, from their fixed noise or from new."""
    batch = torch.zeros(number, 3, scales[0].side if scales else side, scales[0].side if scales else side)
    for i, scale in enumerate(scales):
        batch = _resize(batch, scale.side)
        noise = scale.noise if fixed else _random_noise(number, scale.side, i == 0)
        batch = scale.generator(scale.strength * noise + batch, batch)
    return _resize(batch, side)


class TDG:
    """The method; see `tdg` for its hyper-parameters."""

    def __init__(
        self,
        *,
        sides: Sequence[int],
        transformations: Sequence[Transformation],
        channels: int,
        steps: int,
        learning_rate: float,
        reconstruction: float,
        noise: float,
        fraction: float,
        seed: int,
    ) -> None:
        self.sides, self.transformations, self.channels, self.steps = sides, transformations, channels, steps
        self.learning_rate, self.reconstruction, self.noise = learning_rate, reconstruction, noise
        self.fraction, self.seed = fraction, seed
        self._discriminators: list[nn.Sequential] = []

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the scales, coarse to fine; see `Method.fit`."""
        if len(normal) > MAX_SHOTS:
            raise ZooError(
                f"tdg: expected at most {MAX_SHOTS} images, of which it holds {len(self.transformations)} views "
                f"each, got {len(normal)}. Give fewer; it is a method for one or a few."
            )
        images = resized(normal, self.sides[-1]).float() / 127.5 - 1
        scales: list[_Scale] = []
        with seeded(self.seed):
            for side in self.sides:
                scales.append(self._train(scales, _resize(images, side), progress))
        self._discriminators = [scale.discriminator for scale in scales]

    def _transformed(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) -> (M N, 3, S, S), transformation after transformation."""
        return torch.cat([transformation(batch) for transformation in self.transformations])

    def _train(self, scales: list[_Scale], real: torch.Tensor, progress: Progress | None) -> _Scale:
        """Train the next scale on images (N, 3, S, S) in -1..1."""
        number, side = len(real), real.shape[-1]
        count = len(self.transformations)
        channels = self.channels * min(2 ** (len(scales) // 4), 4)
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
                fooled = error(self._transformed(generator(noise + coarse, coarse)), names)
                difference = F.mse_loss(generator(strength * fixed + rebuilt, rebuilt), real)
                optimizers[1].zero_grad()
                (fooled + self.reconstruction * difference).backward()
                optimizers[1].step()
            for schedule in schedules:
                schedule.step()
            if progress is not None:
                progress("train", len(scales) * self.steps + step + 1, len(self.sides) * self.steps)
        generator.eval().requires_grad_(False)
        discriminator.eval()
        return _Scale(side, channels, generator, discriminator, fixed, strength)

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Image scores in 0..1 and maps in nats; see `Method.predict`."""
        if not self._discriminators:
            raise ZooError("tdg: expected `fit` before `predict`.")
        return one_by_one(images, self._judge)

    def _judge(self, image: Uint8Array) -> tuple[float, torch.Tensor]:
        """Score: mean doubt on the least certain patches. Map: mean -log p of the right transformation."""
        batch = to_batch([image], self.sides[-1]) * 2 - 1
        count, scores, heat = len(self.transformations), [], torch.zeros(self.sides[-1], self.sides[-1])
        for side, discriminator in zip(self.sides, self._discriminators, strict=True):
            logits = discriminator(self._transformed(_resize(batch, side)))
            # "Fake" takes no part: a defect need not look generated.
            surprise = -torch.log_softmax(logits[:, :count], 1)[torch.arange(count), torch.arange(count)]
            certainty = torch.exp(-surprise).flatten(1).sort(1).values
            least = max(1, int(self.fraction * certainty.shape[1]))
            scores.append(1 - float(certainty[:, :least].mean()))
            back = [t.undo(s, int(SHIFT * side)) for t, s in zip(self.transformations, surprise, strict=True)]
            total, seen = torch.stack(back).sum(0)
            known = F.pad((total / seen)[None, None], (BORDER,) * 4, mode="replicate")
            heat += _resize(known, self.sides[-1])[0, 0] / len(self.sides)
        return sum(scores) / len(scores), heat

    def model_bytes(self) -> int:
        """The discriminators: an inspection generates nothing."""
        return tensor_bytes(*self._discriminators)


@baseline(
    Card(
        name="tdg",
        title="TDG (HTDG)",
        paper="Sheynin, Benaim & Wolf 2021, A Hierarchical Transformation-Discriminating Generative Model for Few Shot "
        "Anomaly Detection, ICCV (arXiv 2104.14535)",
        year=2021,
        family="generative",
        supervision="good images",
        source="fewshot_ad",
        license="Apache-2.0",
        maps=True,
        needs_masks=False,
        needs_internet=False,
        trains=True,
        weights="None: trained from scratch on the images, as published. Scores are not scaled by the test set's "
        "own range, which the authors' evaluation also tries; maps average over transformations and scales.",
    )
)
def tdg(
    *,
    seed: int = 0,
    image_size: int = 64,
    coarsest: int = 25,
    scales: int = 5,
    channels: int = 32,
    steps: int = 5000,
    transformations: int = 54,
    learning_rate: float = 5e-4,
    reconstruction: float = 100.0,
    noise: float = 0.1,
    fraction: float = 0.1,
) -> TDG:
    """TDG with the published hyper-parameters.

    Args:
        seed: Of everything random.
        image_size: Side of the finest scale in pixels.
        coarsest: Side of the coarsest, at least 12.
        scales: Number of scales, spaced evenly on a logarithmic axis.
        channels: Of a layer at the first four scales; twice as many at the next four, then four times as many.
        steps: Iterations a scale, of three updates of either network.
        transformations: How many of the published ones, from the first: 2 to 54.
        learning_rate: Of both networks.
        reconstruction: Weight of the reconstruction loss.
        noise: Strength of the noise, as a share of what coarser scales leave out.
        fraction: Share of the patches, the least certain, that make the image score; 0.01 to 0.1 by the authors.

    Raises:
        ZooError: The scales, transformations or steps make no sense.
    """
    known = published_transformations()
    if not 2 <= transformations <= len(known):
        raise ZooError(f"tdg: expected 2 to {len(known)} transformations, got {transformations}.")
    if scales < 1 or steps < 1 or not 2 * BORDER + 2 <= coarsest <= image_size:
        raise ZooError(
            f"tdg: expected scales and steps of 1 or more and {2 * BORDER + 2} <= coarsest <= image_size, got "
            f"scales={scales}, steps={steps}, coarsest={coarsest}, image_size={image_size}."
        )
    shares = [1.0] if scales == 1 else [i / (scales - 1) for i in range(scales)]
    return TDG(
        sides=[round(coarsest * (image_size / coarsest) ** share) for share in shares],
        transformations=known[:transformations],
        channels=channels,
        steps=steps,
        learning_rate=learning_rate,
        reconstruction=reconstruction,
        noise=noise,
        fraction=fraction,
        seed=seed,
    )
