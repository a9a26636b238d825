"""Patch SVDD: encoders of patches of two sizes, trained from scratch on the good images, and nearest neighbors.

The encoders pull patches a few pixels apart together, and tell on which side of a patch its neighbor lies, which keeps
them from mapping everything to one point. Patches far from all good ones are anomalous.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import IndexArray, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.search.memory_bank import MemoryBank, Origin
from fewshot_ad.zoo.components.patch_encoder import BIG, BIG_STRIDE, SMALL, SMALL_STRIDE, PatchEncoder, spread
from fewshot_ad.zoo.components.tensors import one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

# Where the neighbor of a patch may lie: down and right.
SIDES = np.array([(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])
CLASSIFIER_WIDTH, SLOPE = 128, 0.1
# Standard deviation of the shift of each color of a patch, and of the noise in each pixel, of values in 0..1.
SHIFT, NOISE = 0.02, 0.02


@baseline(
    Card(
        name="patch_svdd",
        title="Patch SVDD",
        paper="Yi & Yoon 2020, Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation, ACCV",
        year=2020,
        family="memory bank",
        needs_internet=False,
        trains=True,
        weights="None: trained from scratch on the images, as published, but for a number of steps with batches of 16 "
        "that suits a few images on a CPU instead of 300 epochs of a hundred patches of each image in batches of 64; "
        "so with larger first weights and learning rate, and a weaker pull. Neighbors are searched exactly.",
        original=Original(
            options={"batch_size": 64, "learning_rate": 1e-4, "pull": 1.0},
            lengths={"steps": "300 epochs of 100 patches of each image"},
            departs=(
                "first weights of He et al. 2015 for the spread of the images",
                "minus the mean color, not the mean image, which consists of the few images that are learned from",
            ),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class PatchSVDD:
    """Patch SVDD.

    Attributes:
        seed: Seed of the first weights, the patches and their noise.
        image_size: Both sides of the input, in pixels: a multiple of 16, at least 64.
        dimensions: Length of an embedding.
        steps: Training steps.
        batch_size: Pairs of patches per step, for each of two losses and two sizes.
        learning_rate: Adam's learning rate.
        pull: lambda, the weight of the loss that pulls patches together. The published weight needs the published
            length of training: before patches are told apart by position, it maps all of them to one point.

    Raises:
        ZooError: A setting makes no sense.

    Source: Yi & Yoon 2020: pulling together, eq. 3; position of the neighbor, eq. 4; both, eq. 5; two sizes, section
    3.3; maps, eq. 6 and section 3.4. Values of the settings from the authors' public code.
    """

    seed: int = 0
    image_size: int = 256
    dimensions: int = 64
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 3e-4
    pull: float = 1e-3
    _encoder: PatchEncoder | None = field(default=None, init=False, repr=False)
    _mean: torch.Tensor | None = field(default=None, init=False, repr=False)
    _banks: tuple[MemoryBank, ...] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.image_size < BIG or self.image_size % BIG_STRIDE:
            raise ZooError(
                f"patch_svdd: expected an image_size of at least {BIG} that is a multiple of {BIG_STRIDE}, got "
                f"{self.image_size}."
            )
        if min(self.dimensions, self.steps, self.batch_size) < 1:
            raise ZooError(
                "patch_svdd: expected dimensions, steps and batch_size of at least 1, got "
                f"{self.dimensions}, {self.steps} and {self.batch_size}."
            )
        if self.learning_rate <= 0 or self.pull < 0:
            raise ZooError(
                "patch_svdd: expected a learning_rate above 0 and a pull of at least 0, got "
                f"{self.learning_rate} and {self.pull}."
            )

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the encoders, and remember the embeddings of all patches; see `Method.fit`."""
        images = resized(normal, self.image_size).float() / 255
        mean = images.mean((0, 2, 3))[:, None, None]
        images -= mean
        rng = np.random.default_rng(self.seed)
        with seeded(self.seed), torch.inference_mode(False), torch.enable_grad():
            encoder = PatchEncoder(self.dimensions, max(float(images.std()), NOISE))
            sizes = ((BIG, encoder.encode_big), (SMALL, encoder.encode_small))
            classifiers = nn.ModuleList(position_classifier(self.dimensions) for _ in sizes)

            def loss() -> torch.Tensor:
                total = torch.zeros(())
                for (patch, encode), classifier in zip(sizes, classifiers, strict=True):
                    place = (self.batch_size, len(images), self.image_size, patch, rng)
                    first, second = encode(cut(images, jittered_pairs(*place), patch)).chunk(2)
                    pairs, named = neighboring_pairs(*place)
                    here, there = encode(perturbed(cut(images, pairs, patch))).chunk(2)
                    error = F.cross_entropy(classifier(here - there), torch.as_tensor(named))
                    total = total + error + self.pull * pulled_together(first, second)
                return total

            optimizer = torch.optim.Adam([*encoder.parameters(), *classifiers.parameters()], self.learning_rate)
            train_steps(loss, self.steps, [optimizer], progress=progress)
        encoder.requires_grad_(False).eval()
        with torch.no_grad():
            grids = [encoder.grids(image[None]) for image in images]
        self._banks = tuple(_bank(torch.cat([_rows(grid) for grid in size])) for size in zip(*grids, strict=True))
        self._encoder, self._mean = encoder, mean

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Distances to the nearest good patches of either size, multiplied; the score is the map's maximum.

        See `Method.predict`. Source: Yi & Yoon 2020, eq. 6 and section 3.4.
        """
        encoder, mean = require_fitted(self._encoder, "patch_svdd"), require_fitted(self._mean, "patch_svdd")
        banks = require_fitted(self._banks, "patch_svdd")

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            heat = torch.ones(self.image_size, self.image_size)
            grids = encoder.grids(to_batch([image], self.image_size) - mean)
            for grid, bank, (patch, stride) in zip(
                grids, banks, ((SMALL, SMALL_STRIDE), (BIG, BIG_STRIDE)), strict=True
            ):
                distances = torch.as_tensor(bank.nearest(_rows(grid).numpy())).view(grid.shape[2:])
                heat = heat * spread(distances, patch, stride)
            return float(heat.max()), heat

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_encoder": PatchEncoder(self.dimensions), "_mean": None, "_banks": None}

    def model_bytes(self) -> int:
        """The encoders, the mean color and the embeddings."""
        banks = require_fitted(self._banks, "patch_svdd")
        remembered = sum(bank.vectors.size * bank.stored_dtype.itemsize for bank in banks)
        networks = require_fitted(self._encoder, "patch_svdd"), require_fitted(self._mean, "patch_svdd")
        return tensor_bytes(*networks) + remembered


def pulled_together(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean distance between the embeddings (n, D) of the two patches of each pair. Source: Yi & Yoon 2020, eq. 3."""
    return (first - second).norm(dim=1).mean()


def jittered_pairs(count: int, images: int, side: int, patch: int, rng: np.random.Generator) -> IndexArray:
    """Pairs of patches that lie a thirty-second of their side apart, or less, but not on one another.

    Args:
        count: Number of pairs.
        images: Number of images to choose from.
        side: Both sides of the images, in pixels.
        patch: Both sides of the patches, in pixels.
        rng: Source of everything random.

    Returns:
        (2, count, 3): image, row and column of the upper left corner. At the image's border a patch may be moved back
        onto the other.
    """
    first = _corners(count, images, side, patch, rng)
    steps = np.arange(-(patch // 32), patch // 32 + 1)
    moves = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    moves = moves[np.any(moves != 0, axis=1)]
    return _moved(first, moves[rng.integers(len(moves), size=count)], side - patch)


def neighboring_pairs(
    count: int, images: int, side: int, patch: int, rng: np.random.Generator
) -> tuple[IndexArray, IndexArray]:
    """Pairs of patches of which the second lies on one of eight sides of the first, three quarters of a patch away.

    Args:
        count: As for `jittered_pairs`, like `images`, `side`, `patch` and `rng`.
        images: Number of images.
        side: Side of the images.
        patch: Side of the patches.
        rng: Source of everything random.

    Returns:
        Pairs as those of `jittered_pairs`, and (count,) numbers of the sides, 0..7, in the order of `SIDES`.
    """
    first = _corners(count, images, side, patch, rng)
    named = rng.integers(len(SIDES), size=count)
    away = 3 * patch // 4 + rng.integers(patch // 4, size=(count, 2))
    return _moved(first, SIDES[named] * away, side - patch), named


def _corners(count: int, images: int, side: int, patch: int, rng: np.random.Generator) -> IndexArray:
    return np.c_[rng.integers(images, size=count), rng.integers(side - patch + 1, size=(count, 2))]


def _moved(first: IndexArray, moves: IndexArray, last: int) -> IndexArray:
    second = first.copy()
    second[:, 1:] = np.clip(first[:, 1:] + moves, 0, last)
    return np.stack([first, second])


def cut(images: torch.Tensor, pairs: IndexArray, patch: int) -> torch.Tensor:
    """Patches of images (N, 3, S, S): (2 n, 3, patch, patch), the first ones of all pairs and then the second ones."""
    return torch.stack([images[i, :, y : y + patch, x : x + patch] for i, y, x in pairs.reshape(-1, 3).tolist()])


def perturbed(patches: torch.Tensor) -> torch.Tensor:
    """Patches (N, 3, K, K) with shifted colors and noise, so that their neighbor is not known by its color."""
    shift = SHIFT * torch.randn(len(patches), 3, 1, 1)
    return patches + shift + NOISE * torch.randn(patches.shape)


def position_classifier(dimensions: int) -> nn.Sequential:
    """Names the side on which a neighbor lies, from the difference of two embeddings. Source: section 3.2."""
    widths = (dimensions, CLASSIFIER_WIDTH, CLASSIFIER_WIDTH)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Linear(CLASSIFIER_WIDTH, len(SIDES)))


def _rows(grid: torch.Tensor) -> torch.Tensor:
    """(1, D, h, w) -> (h w, D)."""
    return grid[0].flatten(1).T.contiguous()


def _bank(rows: torch.Tensor) -> MemoryBank:
    # A baseline is never asked for the place in the image that a bank vector comes from.
    nowhere = np.zeros(len(rows), np.int32)
    return MemoryBank(rows.numpy(), Origin(nowhere, nowhere, np.zeros((len(rows), 2), np.int32)), "l2")
