"""ARNet: restore an image from which attributes were erased; what it cannot restore is anomalous.

Color is removed and the image is turned by quarter turns; a U-Net restores both. It can only do so by knowing what
good parts look like.

Source: Huang, Ye, Cao, Li, Zhang & Lu 2022 (Attribute Restoration Framework for Anomaly Detection, IEEE TMM;
arXiv:1911.10676).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.tensors import one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import train_epochs
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

# The learning rate is halved after each tenth of the epochs.
RATE, HALVINGS = 0.1, 10
BATCH = 32


@baseline(
    Card(
        name="arnet",
        title="ARNet",
        paper="Huang, Ye, Cao, Li, Zhang & Lu 2022, Attribute Restoration Framework for Anomaly Detection, IEEE TMM "
        "(arXiv:1911.10676)",
        year=2022,
        family="restoration",
        needs_internet=False,
        trains=True,
        weights="None: trained from scratch, as in the paper. The paper has no maps of single pixels; here the error "
        "at each pixel is smoothed.",
        original=Original(departs=("maps of single pixels, which the paper does not have",)),
    )
)
@dataclass(kw_only=True, eq=False)
class ArNet:
    """ARNet.

    Attributes:
        seed: Seed of everything random.
        image_size: Side of the network's input in pixels, a multiple of 16, at least 32.
        epochs: Passes over the images, each under every erasure: 500 in all with four of them.
        erasing: `gray+rotation`, `gray` or `rotation`. Rotation teaches nothing if parts lie in any direction.
        width: Channels of the network at full size.
        sigma: Standard deviation of the map's smoothing, in pixels of `image_size`.

    Raises:
        ZooError: A setting makes no sense.
    """

    seed: int = 0
    image_size: int = 256
    epochs: int = 125
    erasing: str = "gray+rotation"
    width: int = 64
    sigma: float = 4.0
    _restoration: _Restoration | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.image_size < 32 or self.image_size % 16:
            raise ZooError(f"arnet: expected image_size as a multiple of 16 from 32 on, got {self.image_size}.")
        if self.erasing not in ERASURES:
            raise ZooError(f"arnet: expected erasing among {sorted(ERASURES)}, got {self.erasing!r}.")
        if self.epochs < 1 or self.width < 1 or self.sigma < 0:
            raise ZooError(
                f"arnet: expected epochs and width of at least 1 and sigma of at least 0, got {self.epochs}, "
                f"{self.width} and {self.sigma}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the restoration, and record its usual error on good images; see `Method.fit`."""
        images = resized(normal, self.image_size)
        erasures = ERASURES[self.erasing]
        with seeded(self.seed) as generator:
            network = UNet(1 if erasures[0].gray else 3, self.width)
            optimizer = torch.optim.SGD(network.parameters(), RATE)
            milestones = [max(1, self.epochs * n // HALVINGS) for n in range(1, HALVINGS)]

            def batches() -> Sequence[torch.Tensor]:
                """Every image under every erasure, in random order."""
                return torch.randperm(len(images) * len(erasures), generator=generator).split(BATCH)

            def loss(batch: torch.Tensor) -> torch.Tensor:
                whole = _signed(images[batch // len(erasures)].float() / 255)
                erased = [erasures[int(n) % len(erasures)](whole[i : i + 1]) for i, n in enumerate(batch)]
                return F.mse_loss(network(torch.cat(erased)), whole)

            schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.5)
            train_epochs(loss, batches, self.epochs, [optimizer], schedules=[schedule], progress=progress)
        network.requires_grad_(False).eval()
        errors = [_errors(network, erasures, image[None].float() / 255).mean((1, 2)) for image in images]
        self._restoration = _Restoration(network, torch.stack(errors).mean(0).clamp_min(1e-12))

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = error of the restoration, as a multiple of the usual error, averaged over the erasures.

        See `Method.predict`.
        """
        restoration = require_fitted(self._restoration, "arnet")

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            errors = _errors(restoration.network, ERASURES[self.erasing], to_batch([image], self.image_size))
            heat = (errors / restoration.usual_errors.view(-1, 1, 1)).mean(0)
            return float(np.float32(heat.mean())), heat

        return one_by_one(images, judge, self.sigma)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        network = UNet(1 if ERASURES[self.erasing][0].gray else 3, self.width)
        return {"_restoration": _Restoration(network, torch.empty(0))}

    def model_bytes(self) -> int:
        """The network and the usual errors."""
        restoration = require_fitted(self._restoration, "arnet")
        return tensor_bytes(restoration.network, restoration.usual_errors)


@dataclass(frozen=True, eq=False)
class _Restoration:
    """The trained network, and its mean error on good images, per erasure (erasures,)."""

    network: UNet
    usual_errors: torch.Tensor


class Erasure(NamedTuple):
    """A way to erase attributes.

    Attributes:
        gray: Whether color is removed.
        quarter_turns: Anticlockwise, 0..3; orientation is lost if several of them are in use.
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
        channels: Channels of the input.
        width: Channels at full size; 2, 4, 8 and 8 times as many at the coarser steps.
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


def _errors(network: UNet, erasures: Sequence[Erasure], whole: torch.Tensor) -> torch.Tensor:
    """(1, 3, S, S) in 0..1 -> the error at each pixel after each erasure, (erasures, S, S).

    The mean absolute error of the colors: the paper trains with the squared error and tests with the absolute one.
    """
    whole = _signed(whole)
    with torch.no_grad():
        restored = network(torch.cat([erase(whole) for erase in erasures]))
    return (restored - whole).abs().mean(1)
