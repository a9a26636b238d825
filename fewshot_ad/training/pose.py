"""Trains the pose network, once, by known warps: the pose of a warped image must be the warp of its pose.

Each pair of a batch shows one part, or two parts of one product that lie at known places, each under a warp of its
own. Brought into the part's coordinates, their poses must be equal: centers and spreads by their squared difference,
turns by the cosine between the moments of each order (a circular loss, which a part of m-fold symmetry meets at order
m). Real images take part with warps of themselves.

Sources: see `training.pose_network`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.encoder.registration import compose, warp
from fewshot_ad.errors import TrainingError
from fewshot_ad.registration import POSE_SIDE, squared
from fewshot_ad.training.augmentation import PhotometricJitter
from fewshot_ad.training.images import GENERATED, ImageStore, check_folders, drop_unreadable, find_categories
from fewshot_ad.training.loaders import prefetch
from fewshot_ad.training.pose_network import PoseNetwork, Poses, as_seen_by_the_part
from fewshot_ad.training.run import Clock, RunFolder, one_cosine, set_learning_rate

# Images are warped at twice the network's side, then halved: a warp of the small copy itself would blur it.
WARP_SIDE = 2 * POSE_SIDE
# Weights of the squared differences against the circular loss, which is 0..2: of the center in half images, and of the
# spread's logarithm.
CENTER_WEIGHT, SPREAD_WEIGHT = 20.0, 5.0
# A moment shorter than this counts as no turn: the loss then pays for making it longer.
SHORT_MOMENT = 0.05
LOG_EVERY = 50
WARMUP = 100


@dataclass(frozen=True)
class PoseRecipe:
    """All settings of a training of the pose network; stored as YAML with the run.

    Attributes:
        folders: Folders of good images, see `find_categories`; `parts` stands for the built-in generator.
        licenses: License of each folder, for the card.
        generated: Number of generated products per category, if `folders` has `parts`. Categories that have no pose
            (cloth, leather, wood) are left out.
        generated_images: Number of images per generated product: a third of them in a jig, the others at any angle.
        steps: Number of steps.
        batch: Number of pairs per step.
        learning_rate: Highest learning rate of AdamW; warmed up, then falling to 0 along half a cosine.
        turned: Share of the warps that turn by any angle; the others turn by up to 20 degrees.
        zoom: Largest zoom of a warp, as a natural logarithm.
        shift: Largest shift of a warp, in half images.
        photometric: Strength of the photometric augmentation, see `PhotometricJitter`.
        seed: Seed of all random numbers.

    Raises:
        TrainingError: A setting is out of range.
    """

    folders: tuple[str, ...] = (GENERATED,)
    licenses: tuple[str, ...] = ()
    generated: int = 40
    generated_images: int = 6
    steps: int = 4000
    batch: int = 32
    learning_rate: float = 2e-3
    turned: float = 0.7
    zoom: float = 0.2
    shift: float = 0.15
    photometric: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.generated, self.generated_images, self.steps, self.batch) < 1:
            raise TrainingError(
                f"expected generated, generated_images, steps and batch of at least 1, got {self.generated}, "
                f"{self.generated_images}, {self.steps} and {self.batch}."
            )
        least = min(self.zoom, self.shift, self.photometric)
        if not (0 <= self.turned <= 1 and least >= 0 and self.learning_rate > 0):
            raise TrainingError(
                "expected turned in 0..1, zoom, shift and photometric of at least 0 and a learning_rate above 0, got "
                f"{self.turned}, {self.zoom}, {self.shift}, {self.photometric} and {self.learning_rate}."
            )
        if not self.folders:
            raise TrainingError("expected at least one folder of images, or 'parts' for generated ones.")
        if self.licenses and len(self.licenses) != len(self.folders):
            raise TrainingError(
                f"expected one license per folder, got {len(self.licenses)} for {len(self.folders)} folders."
            )


@dataclass(frozen=True)
class PoseTraining:
    """The result of a training.

    Attributes:
        network: The network after the last step.
        data: Names, counts and licenses of the training data.
    """

    network: PoseNetwork
    data: tuple[dict[str, Any], ...]


def train_pose(
    recipe: PoseRecipe, output: str | Path, *, restart: bool = False, progress: Progress | None = None
) -> PoseTraining:
    """Train the pose network, or resume a run that was killed. The result is the last step; none is selected.

    Args:
        recipe: The recipe.
        output: Folder of the run, for the recipe, the log and the checkpoint.
        restart: Whether to discard an existing run and start anew.
        progress: Called with (`render`, products done, products in all), then (`train`, steps done, steps in all).

    Raises:
        TrainingError: The data or the folder do not allow it, or the loss is no longer a number.
    """
    check_folders(recipe.folders, 1)
    run = RunFolder(output, recipe, restart=restart)
    torch.manual_seed(recipe.seed)
    network = PoseNetwork()
    products, data = _products(recipe, progress)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
    first = run.resume(network, optimizer)
    run.truncate_log(first)
    jitter = PhotometricJitter(recipe.photometric) if recipe.photometric > 0 else None
    network.train()
    clock, summed = Clock(first, recipe.steps), 0
    sums: dict[str, float] = {}
    for step, (images, transforms) in prefetch(lambda step: _batch(recipe, products, step), first, recipe.steps):
        set_learning_rate(optimizer, recipe.learning_rate * one_cosine(step, recipe.steps, WARMUP))
        if jitter is not None:
            images = jitter(images, recipe.seed * 7919 + step)
        losses = pose_losses(as_seen_by_the_part(network.poses(images), transforms))
        loss = CENTER_WEIGHT * losses["center"] + SPREAD_WEIGHT * losses["spread"] + losses["turn"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        done = step + 1
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        summed += 1
        if done % LOG_EVERY == 0 or done == recipe.steps:
            if not all(math.isfinite(value) for value in sums.values()):
                raise TrainingError(f"the loss is no longer a number at step {done}. Lower learning_rate.")
            run.save(done, network, optimizer)
            rounded = {name: round(value / summed, 5) for name, value in sums.items()}
            run.log({"step": done, **rounded, "eta_s": round(clock.eta_s(done))})
            sums, summed = {}, 0
        if progress is not None:
            progress("train", done, recipe.steps)
    return PoseTraining(network.eval(), data)


def pose_losses(poses: Poses) -> dict[str, torch.Tensor]:
    """How far the poses of pairs are from equal.

    Args:
        poses: Of N first images, then of their N partners, in the coordinates of the parts.

    Returns:
        `center` (mean squared distance), `spread` (mean squared difference of the logarithms) and `turn` (mean over
        the orders of 1 - cosine, in which short moments count as no turn).
    """
    (first, second), (small, large) = poses.center.chunk(2), poses.log_spread.chunk(2)
    a, b = poses.moments.chunk(2)
    floor = SHORT_MOMENT**2
    length = torch.sqrt((a.square().sum(2) + floor) * (b.square().sum(2) + floor))
    return {
        "center": (first - second).square().sum(1).mean(),
        "spread": (small - large).square().mean(),
        "turn": (1 - (a * b).sum(2) / length).mean(),
    }


@dataclass(frozen=True)
class _Product:
    """Images of one product (n, WARP_SIDE, WARP_SIDE, 3) uint8, and where the parts lie, (n, 2, 3) float32.

    Of real images the place is not known: `transforms` is None, and an image is paired with itself only.
    """

    images: Uint8Array
    transforms: Float32Array | None


def _products(recipe: PoseRecipe, progress: Progress | None) -> tuple[list[_Product], tuple[dict[str, Any], ...]]:
    products: list[_Product] = []
    data: list[dict[str, Any]] = []
    store = ImageStore(2 * WARP_SIDE)
    for n, folder in enumerate(recipe.folders):
        if folder == GENERATED:
            products += _generated(recipe, progress)
            count = sum(len(product.images) for product in products)
            data.append({"name": "generated parts", "images": count, "license": "Apache-2.0"})
            continue
        categories, _ = drop_unreadable(find_categories([folder]), store)
        for category in categories:
            images = [squared(store.read(path), WARP_SIDE) for path in category.files]
            products.append(_Product(np.stack(images), None))
            license = recipe.licenses[n] if recipe.licenses else "not stated"
            data.append({"name": category.name, "images": len(images), "license": license})
    return products, tuple(data)


def _generated(recipe: PoseRecipe, progress: Progress | None) -> list[_Product]:
    from fewshot_ad.training.parts import CATEGORIES, render_placed

    names = [name for name, kind in CATEGORIES.items() if "texture" not in kind.placements]
    products = []
    for name in names:
        for variant in range(recipe.generated):
            parts = [
                render_placed(
                    name,
                    n,
                    WARP_SIDE,
                    variant=recipe.seed * 1000 + variant,
                    placement="fixed" if n % 3 == 0 else "free",
                )
                for n in range(recipe.generated_images)
            ]
            products.append(_Product(np.stack([p.image for p in parts]), np.stack([p.transform for p in parts])))
            if progress is not None:
                progress("render", len(products), len(names) * recipe.generated)
    return products


def _batch(recipe: PoseRecipe, products: Sequence[_Product], step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (2N, 3, POSE_SIDE, POSE_SIDE) in 0..1, the pairs' first before their second, and their transforms."""
    rng = np.random.default_rng([recipe.seed, 1, step])
    images: tuple[list[Uint8Array], list[Uint8Array]] = ([], [])
    places: tuple[list[Float32Array], list[Float32Array]] = ([], [])
    for at in rng.integers(len(products), size=recipe.batch):
        product = products[at]
        first, second = rng.integers(len(product.images), size=2)
        if product.transforms is None or rng.random() < 0.3:
            second = first
        for side, index in enumerate((first, second)):
            images[side].append(product.images[index])
            place = np.eye(2, 3, dtype=np.float32) if product.transforms is None else product.transforms[index]
            places[side].append(place)
    warps = torch.from_numpy(np.stack([_random_warp(recipe, rng) for _ in range(2 * recipe.batch)]))
    pixels = torch.from_numpy(np.stack(images[0] + images[1])).permute(0, 3, 1, 2).float() / 255
    # The warped image shows at p what the image shows at warp(p), which lies at place(warp(p)) of the part.
    transforms = compose(torch.from_numpy(np.stack(places[0] + places[1])), warps)
    return F.avg_pool2d(warp(pixels, warps), WARP_SIDE // POSE_SIDE), transforms


def _random_warp(recipe: PoseRecipe, rng: np.random.Generator) -> Float32Array:
    reach = np.pi if rng.random() < recipe.turned else np.radians(20)
    angle, zoom = rng.uniform(-reach, reach), np.exp(rng.uniform(-recipe.zoom, recipe.zoom))
    cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
    shift = rng.uniform(-recipe.shift, recipe.shift, 2)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]], np.float32)
