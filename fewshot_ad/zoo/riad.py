"""RIAD: paint in hidden cells of an image from what is around them; what comes out otherwise is anomalous."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import torch
from torch import nn

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.similarity import msgms_map, restoration_loss
from fewshot_ad.zoo.components.tensors import one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import shuffled_batches, train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

# The learning rate falls to a tenth after this share of the training: epoch 250 of 300.
FALL = 5 / 6


@baseline(
    Card(
        name="riad",
        title="RIAD",
        paper="Zavrtanik, Kristan & Skočaj 2021, Reconstruction by Inpainting for Visual Anomaly Detection, Pattern "
        "Recognition",
        year=2021,
        family="restoration",
        needs_internet=False,
        trains=True,
        weights="None: trained from scratch on the images, as published; on smaller images, with a narrower network "
        "and a number of steps that suits a few images on a CPU instead of 300 epochs.",
        original=Original(
            options={"image_size": 256, "width": 64, "batch_size": 4, "learning_rate": 1e-4, "smoothing": 21},
            lengths={"steps": "300 epochs"},
            departs=("no images held out for early stopping",),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class RIAD:
    """Reconstruction by inpainting.

    Attributes:
        seed: Seed of the network, the order of the images and the cells that are hidden.
        image_size: Both sides of the input in pixels, a multiple of 16.
        cells: k, sides of the cells in pixels; training draws one of them for each step, the score averages over all.
        masks: n, number of disjoint sets of cells that are hidden in turn.
        width: Channels of the network at full size.
        steps: Training steps.
        batch_size: Images per step, at most.
        learning_rate: Adam's learning rate.
        scales: Scales of the gradient magnitude similarity.
        gms_weight: Weight of the gradient magnitude similarity in the loss.
        ssim_weight: Weight of the structural similarity in the loss.
        smoothing: Side of the mean filter of the map, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.

    Source: Zavrtanik et al. 2021, section 3: disjoint sets of cells, the loss, and the score. The network's layers, the
    batch size and the schedule are those of public reimplementations, since no code of the authors was found.
    """

    seed: int = 0
    image_size: int = 128
    cells: Sequence[int] = (2, 4, 8, 16)
    masks: int = 3
    width: int = 16
    steps: int = 500
    batch_size: int = 2
    learning_rate: float = 1e-3
    scales: int = 4
    gms_weight: float = 1.0
    ssim_weight: float = 1.0
    smoothing: int = 11
    _network: InpaintingUNet | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.image_size < 16 or self.image_size % 16:
            raise ZooError(f"riad: expected image_size as a multiple of 16, got {self.image_size}.")
        if not self.cells or not all(1 <= cell <= self.image_size // 2 for cell in self.cells):
            raise ZooError(
                f"riad: expected cells of 1 to {self.image_size // 2} pixels, half of image_size, got "
                f"{list(self.cells)}."
            )
        if not 2 <= self.masks <= 4:
            raise ZooError(f"riad: expected 2 to 4 masks, got {self.masks}.")
        counts = (self.width, self.steps, self.batch_size, self.smoothing)
        if min(counts) < 1 or not 1 <= self.scales <= self.image_size.bit_length() - 1:
            raise ZooError(
                "riad: expected width, steps, batch_size, smoothing and scales of at least 1, and scales that leave a "
                f"pixel of image_size, got {', '.join(map(str, counts))} and {self.scales}."
            )
        if self.learning_rate <= 0 or min(self.gms_weight, self.ssim_weight) < 0:
            raise ZooError(
                "riad: expected learning_rate above 0, gms_weight and ssim_weight of at least 0, got "
                f"{self.learning_rate}, {self.gms_weight} and {self.ssim_weight}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the network to paint in hidden cells; see `Method.fit`."""
        images = resized(normal, self.image_size)
        with seeded(self.seed) as generator:
            network = InpaintingUNet(self.width)
            batches = shuffled_batches(len(images), self.batch_size, generator)

            def loss() -> torch.Tensor:
                batch = images[next(batches)].float() / 255
                cell = self.cells[int(torch.randint(len(self.cells), (), generator=generator))]
                masks = disjoint_masks(self.image_size, cell, self.masks, generator)
                painted = inpainted(network, batch, masks)
                return restoration_loss(painted, batch, self.scales, self.gms_weight, self.ssim_weight)

            optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [max(1, round(FALL * self.steps))], 0.1)
            train_steps(loss, self.steps, [optimizer], schedules=[schedule], progress=progress)
        self._network = network.requires_grad_(False).eval()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = the smoothed map's maximum. See `Method.predict`."""
        network = require_fitted(self._network, "riad")
        generator = torch.Generator().manual_seed(self.seed)
        sets = [disjoint_masks(self.image_size, cell, self.masks, generator) for cell in self.cells]

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            batch = to_batch([image], self.image_size)
            maps = [msgms_map(inpainted(network, batch, masks), batch, self.scales) for masks in sets]
            mean = torch.cat(maps).mean(0).numpy()
            heat = cv2.blur(mean, (self.smoothing, self.smoothing), borderType=cv2.BORDER_REFLECT_101)
            return float(heat.max()), heat

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_network": InpaintingUNet(self.width)}

    def model_bytes(self) -> int:
        """The network."""
        return tensor_bytes(require_fitted(self._network, "riad"))


def disjoint_masks(side: int, cell: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Divide an image into cells, and the cells at random into sets of about the same size.

    Args:
        side: Both sides of the image in pixels.
        cell: Both sides of a cell in pixels; cells at the right and bottom border may be cut.
        count: Number of sets.
        generator: Source of the division.

    Returns:
        (count, 1, side, side) float32: for each set 0 where its cells hide the image, else 1.

    Source: Zavrtanik et al. 2021, section 3.1.
    """
    across = -(-side // cell)
    set_of = torch.randperm(across * across, generator=generator).remainder(count).view(across, across)
    pixels = set_of.repeat_interleave(cell, 0).repeat_interleave(cell, 1)[:side, :side]
    return torch.stack([pixels != number for number in range(count)])[:, None].float()


def inpainted(network: nn.Module, batch: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Images in which every pixel was painted without having been seen.

    Args:
        network: See `InpaintingUNet`.
        batch: (N, 3, S, S) in 0..1.
        masks: (n, 1, S, S), see `disjoint_masks`.

    Returns:
        (N, 3, S, S) in 0..1.

    Source: Zavrtanik et al. 2021, section 3.1.
    """
    # Hidden pixels are 0, medium gray.
    visible = (2 * batch - 1) * masks[:, None]
    painted = network(visible.flatten(0, 1)).view_as(visible)
    return (((1 - masks[:, None]) * painted).sum(0) + 1) / 2


class InpaintingUNet(nn.Module):
    """Encoder and decoder of four steps, with strided and transposed convolutions and a skip connection at each.

    Args:
        width: Channels at full size; 2, 4, 8 and 8 times as many at the coarser steps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.entry = nn.Sequential(*_convolution(3, width), *_convolution(width, width))
        self.down, self.rise, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for fine, coarse in itertools.pairwise(widths):
            self.down.append(nn.Sequential(*_convolution(fine, coarse, 2), *_convolution(coarse, coarse)))
        for coarse, fine in itertools.pairwise(widths[::-1]):
            self.rise.append(nn.ConvTranspose2d(coarse, fine, 4, 2, 1))
            self.up.append(nn.Sequential(*_convolution(2 * fine, fine), *_convolution(fine, fine)))
        self.exit = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in -1..1, S a multiple of 16 -> the same shape and range."""
        features, skips = self.entry(batch), []
        for down in self.down:
            skips.append(features)
            features = down(features)
        for rise, up in zip(self.rise, self.up, strict=True):
            features = up(torch.cat([rise(features), skips.pop()], 1))
        return torch.tanh(self.exit(features))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """A convolution of 3 x 3, or of 4 x 4 if it halves the side, with batch norm and ReLU."""
    return [nn.Conv2d(inputs, outputs, 2 + stride, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
