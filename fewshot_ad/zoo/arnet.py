"""ARNet: restore an image from which attributes were erased; what cannot be restored is not good.

Color is taken away and the image is turned by quarter turns; a U-Net gives both back. It can only do so by
knowing what good parts look like.

Source: Huang, Ye, Cao, Li, Zhang & Lu 2022 (Attribute Restoration Framework for Anomaly Detection, IEEE TMM;
arXiv:1911.10676).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.tensors import one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Predictions, baseline

# The rate is halved after each tenth of the epochs.
RATE, HALVINGS = 0.1, 10
BATCH = 32


class Erasure(NamedTuple):
    """A way to erase attributes.

    Attributes:
        gray: Whether color goes.
        quarter_turns: Anticlockwise, 0..3; orientation goes if several of them are in use.
    """

    gray: bool
    quarter_turns: int

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) -> (N, 1, S, S) if gray, else (N, 3, S, S)."""
        if self.gray:
            batch = batch.mean(1, keepdim=True)
        return batch.rot90(self.quarter_turns, (2, 3))


# Source: section on the attribute erasing module: graying and random rotation.
ERASURES = {
    "gray+rotation": tuple(Erasure(True, turns) for turns in range(4)),
    "gray": (Erasure(True, 0),),
    "rotation": tuple(Erasure(False, turns) for turns in range(4)),
}


class UNet(nn.Module):
    """Encoder and decoder of four steps with a skip connection at each.

    Args:
        channels: Of the input.
        width: Channels at full size; 2, 4, 8 and 8 times as many further in.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        inward = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        outward = [4 * width, 2 * width, width, width]
        self.entry = _two_convolutions(channels, width)
        self.encoder = nn.ModuleList(_two_convolutions(a, b) for a, b in itertools.pairwise(inward))
        deep = [inward[-1], *outward[:-1]]
        self.decoder = nn.ModuleList(
            _two_convolutions(a + skip, b) for a, skip, b in zip(deep, inward[-2::-1], outward, strict=True)
        )
        self.exit = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, C, S, S) in -1..1, S a multiple of 16 -> (N, 3, S, S) in -1..1."""
        features = self.entry(batch)
        skips = []
        for step in self.encoder:
            skips.append(features)
            features = step(F.max_pool2d(features, 2))
        for step in self.decoder:
            larger = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)
            features = step(torch.cat([skips.pop(), larger], 1))
        return torch.tanh(self.exit(features))


def _two_convolutions(inputs: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before in (inputs, outputs):
        layers += [nn.Conv2d(before, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def _signed(batch: torch.Tensor) -> torch.Tensor:
    """0..1 -> -1..1."""
    return 2 * batch - 1


@dataclass(eq=False)
class ArNet:
    """The method; see `arnet` for the settings."""

    seed: int
    image_size: int
    epochs: int
    erasing: str
    width: int
    sigma: float

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the restoration, and note how large its error is on good images; see `Method.fit`."""
        images = resized(normal, self.image_size)
        erasures = ERASURES[self.erasing]
        with seeded(self.seed) as generator:
            self._network = UNet(1 if erasures[0].gray else 3, self.width)
            optimizer = torch.optim.SGD(self._network.parameters(), RATE)
            milestones = [max(1, self.epochs * n // HALVINGS) for n in range(1, HALVINGS)]
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.5)
            for epoch in range(self.epochs):
                # Every image under every erasure, in random order.
                order = torch.randperm(len(images) * len(erasures), generator=generator)
                for chosen in order.split(BATCH):
                    whole = _signed(images[chosen // len(erasures)].float() / 255)
                    erased = [erasures[int(n) % len(erasures)](whole[i : i + 1]) for i, n in enumerate(chosen)]
                    loss = F.mse_loss(self._network(torch.cat(erased)), whole)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                schedule.step()
                if progress is not None:
                    progress("training", epoch + 1, self.epochs)
        self._network.requires_grad_(False).eval()
        errors = [self._errors(p[None].float() / 255).mean((1, 2)) for p in images]
        self._usual = torch.stack(errors).mean(0).clamp_min(1e-12)

    def _errors(self, whole: torch.Tensor) -> torch.Tensor:
        """(1, 3, S, S) in 0..1 -> the error at each pixel after each erasure, (erasures, S, S).

        The mean absolute error of the colors: the paper trains with the squared error and tests with the absolute one.
        """
        whole = _signed(whole)
        with torch.no_grad():
            restored = self._network(torch.cat([erase(whole) for erase in ERASURES[self.erasing]]))
        return (restored - whole).abs().mean(1)

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = error of the restoration, as a multiple of the usual one, averaged over the erasures.

        See `Method.predict`.
        """
        return one_by_one(images, self._judge, self.sigma)

    def _judge(self, image: Uint8Array) -> tuple[float, torch.Tensor | Float32Array | None]:
        errors = self._errors(to_batch([image], self.image_size)) / self._usual.view(-1, 1, 1)
        heat = errors.mean(0)
        return float(np.float32(heat.mean())), heat

    def model_bytes(self) -> int:
        """See `Method.model_bytes`."""
        return tensor_bytes(self._network, self._usual)


@baseline(
    Card(
        name="arnet",
        title="ARNet",
        paper="Huang, Ye, Cao, Li, Zhang & Lu 2022, Attribute Restoration Framework for Anomaly Detection, IEEE TMM "
        "(arXiv:1911.10676)",
        year=2022,
        family="restoration",
        supervision="good images",
        source="fewshot_ad",
        license="Apache-2.0",
        maps=True,
        needs_masks=False,
        needs_internet=False,
        trains=True,
        weights="None: trained from scratch, as in the paper. The paper has no maps of single pixels; here the error "
        "at each pixel is smoothed.",
    )
)
def arnet(
    *,
    seed: int,
    image_size: int = 256,
    epochs: int = 125,
    erasing: str = "gray+rotation",
    width: int = 64,
    sigma: float = 4.0,
) -> ArNet:
    """ARNet.

    Args:
        seed: Of everything random.
        image_size: Side the network sees, a multiple of 16, at least 32.
        epochs: Passes over the images, each under every erasure: 500 in all with four of them.
        erasing: `gray+rotation`, `gray` or `rotation`. Rotation teaches nothing where parts lie in any direction.
        width: Channels of the network at full size.
        sigma: Smoothing of the map, in pixels of `image_size`.

    Raises:
        ZooError: A setting makes no sense.
    """
    if image_size < 32 or image_size % 16:
        raise ZooError(f"arnet: expected image_size as a multiple of 16 from 32 on, got {image_size}.")
    if erasing not in ERASURES:
        raise ZooError(f"arnet: expected erasing among {sorted(ERASURES)}, got {erasing!r}.")
    if epochs < 1 or width < 1 or sigma < 0:
        raise ZooError(
            f"arnet: expected epochs and width of at least 1 and sigma of at least 0, got {epochs}, {width} and "
            f"{sigma}."
        )
    return ArNet(seed, image_size, epochs, erasing, width, sigma)
