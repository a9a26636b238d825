"""Deviation learning: good images score as a Gaussian prior does, labeled anomalous ones far above it.

A network scores patches; the score of an image is the mean of its most anomalous patches, at several scales. Shared by
the methods that learn from good images and from a few anomalous ones.

Source: Pang, Ding, Shen, van den Hengel 2021 (DevNet); batches, schedule and clipping as in the authors' public code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.tensors import resized
from fewshot_ad.zoo.components.training import shuffled_batches, train_steps
from fewshot_ad.zoo.method import Labeled

# a of the deviation loss: anomalous images score this many standard deviations above the prior.
MARGIN = 5.0
# l: reference scores drawn from the prior for each loss.
PRIOR_SCORES = 5000
WEIGHT_DECAY = 1e-5
LARGEST_GRADIENT = 1.0
# Side of an image at the smallest scale, in pixels.
SMALLEST = 32
# The learning rate falls to a tenth after every so many steps: 10 epochs of 20.
DECAY_STEPS, DECAY = 200, 0.1


def deviation_loss(scores: torch.Tensor, anomalous: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mean deviation loss of some images.

    Args:
        scores: (N,), at least 0.
        anomalous: (N,) bool.
        generator: Draws the reference scores from the standard normal distribution.

    Source: Pang et al. 2021; as eq. 10-11 of Ding, Pang & Shen 2022 (DRA).
    """
    prior = torch.randn(PRIOR_SCORES, generator=generator)
    deviation = (scores - prior.mean()) / prior.std()
    return torch.where(anomalous, (MARGIN - deviation).clamp_min(0), deviation.abs()).mean()


class PatchScores(nn.Conv2d):
    """A score of at least 0 for each position of a feature map: (N, C, h, w) -> (N, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 1, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) -> (N, h, w)."""
        scores: torch.Tensor = super().forward(features)
        return scores[:, 0].abs()


def top_mean(grids: Sequence[torch.Tensor], share: float) -> torch.Tensor:
    """Scores of images from those of their patches: top-K multiple-instance learning.

    Args:
        grids: Patch scores at each scale, (N, h, w).
        share: K as a share of the patches of a scale, in (0, 1]; at least one patch counts.

    Returns:
        (N,), the mean of the K highest scores, averaged over the scales.
    """
    means = []
    for grid in grids:
        patches = grid.flatten(1)
        means.append(patches.topk(max(1, int(share * patches.shape[1])), 1).values.mean(1))
    return torch.stack(means).mean(0)


def joined_maps(grids: Sequence[torch.Tensor]) -> torch.Tensor:
    """Patch scores at each scale, (N, h, w) -> their mean on the grid of the first, (N, h, w)."""
    side = grids[0].shape[1:]
    enlarged = [F.interpolate(grid[:, None], side, mode="bilinear", align_corners=False)[:, 0] for grid in grids]
    return torch.stack(enlarged).mean(0)


def pyramid(batch: torch.Tensor, scales: int) -> list[torch.Tensor]:
    """(N, 3, S, S) at full size, half of it, a quarter, ...; `scales` sizes, by leaving out pixels."""
    side = batch.shape[-1]
    return [batch, *(F.interpolate(batch, side // 2**scale) for scale in range(1, scales))]


def turned(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image (N, 3, S, S) turned by an angle of its own, any of them; corners from outside are black."""
    angles = 2 * math.pi * torch.rand(len(batch), generator=generator)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros(len(batch))
    rows = (torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1))
    grid = F.affine_grid(torch.stack(rows, 1), list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, align_corners=False)


def check_scales(name: str, image_size: int, scales: int) -> None:
    """Make sure that images are large enough at the smallest of several scales, see `pyramid`.

    Raises:
        ZooError: They are not.
    """
    if image_size < SMALLEST * 2 ** (scales - 1):
        raise ZooError(
            f"{name}: expected at least {SMALLEST} pixels at the smallest of {scales} scales, got an image_size of "
            f"{image_size}."
        )


def training_images(
    name: str, normal: Sequence[Uint8Array], labeled: Sequence[Labeled], side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Good and anomalous images of a training, (N, 3, side, side) uint8 each; masks are not looked at.

    Raises:
        ZooError: There are none of one kind.
    """
    good = resized(normal, side)
    if not labeled:
        raise ZooError(f"{name}: expected at least one labeled image of a defective part, got none.")
    return good, resized([item.image for item in labeled], side)


def draws(images: torch.Tensor, generator: torch.Generator) -> Callable[[int], torch.Tensor]:
    """A source of images: called with a number, it gives so many; each image comes once before any comes again."""
    order: Iterator[torch.Tensor] = shuffled_batches(len(images), 1, generator)
    return lambda count: images[torch.cat([next(order) for _ in range(count)])]


def train_scores(
    network: nn.Module, loss: Callable[[], torch.Tensor], steps: int, learning_rate: float, progress: Progress | None
) -> None:
    """Train all of a network by Adam, and freeze it.

    Args:
        network: Its backbone is trained as well; that keeps the batch statistics it came with.
        loss: Draws a batch and returns its loss.
        steps: Gradient steps.
        learning_rate: At the start.
        progress: As for `train_steps`.
    """
    network.requires_grad_(True).train()
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, weight_decay=WEIGHT_DECAY)

    def clip(*_: object) -> None:
        nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)

    optimizer.register_step_pre_hook(clip)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, DECAY_STEPS, DECAY)
    train_steps(loss, steps, [optimizer], schedules=[schedule], progress=progress)
    network.requires_grad_(False).eval()
