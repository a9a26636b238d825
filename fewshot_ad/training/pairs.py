"""Batches of pairs of good images of one product, with drawn defects on the second image of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import kornia.augmentation as augment
import numpy as np
import numpy.typing as npt
import torch

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.enrollment.defects import blot, displaced_patch, missing_piece, scratch
from fewshot_ad.errors import TrainingError
from fewshot_ad.registration import ORDERS, Registration, pose_estimator
from fewshot_ad.training.augmentation import PhotometricJitter
from fewshot_ad.training.images import GENERATED, ImageStore, drop_unreadable, find_categories, generated_categories
from fewshot_ad.training.loaders import made
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.run import Workers

# Moments of at least this length tell a turn; parts without one stay below, see `PoseNetwork`.
MIN_MOMENT = 0.15


class Pairs:
    """Batches of pairs, each determined by its step number alone.

    Args:
        recipe: The recipe of the training.
        workers: The processes that share each batch.
        loaders: Number of processes that render generated parts; 0 = this one.

    Raises:
        TrainingError: A folder or a category cannot be used.
    """

    def __init__(self, recipe: TrainingRecipe, workers: Workers, loaders: int = 0) -> None:
        self._recipe, self._workers = recipe, workers
        workers.share(recipe.batch)  # what does not fit is said before any image is read
        self._store = ImageStore(max(recipe.size, 256))
        self._products: list[Sequence[Path | Uint8Array]] = []
        data: list[dict[str, Any]] = []
        for n, folder in enumerate(recipe.folders):
            if folder == GENERATED:
                self._products += _generated(recipe, loaders)
                count = recipe.generated * recipe.generated_images
                count *= len(generated_categories(recipe.leave_out))
                data.append({"name": "generated parts", "images": count, "license": "Apache-2.0"})
                continue
            found = [c for c in find_categories([folder]) if c.name not in recipe.leave_out]
            categories, _ = drop_unreadable(found, self._store)
            for category in categories:
                if len(category.files) < 2:
                    raise TrainingError(
                        f"category {category.name!r}: expected at least two images to make a pair, got "
                        f"{len(category.files)}. Add images, or leave the category out."
                    )
                self._products.append(category.files)
                license = recipe.licenses[n] if recipe.licenses else "not stated"
                data.append({"name": category.name, "images": len(category.files), "license": license})
        self.data = tuple(data)
        self.images = sum(len(product) for product in self._products)
        self._photometric = PhotometricJitter(recipe.photometric) if recipe.photometric > 0 else None
        self._geometric = augment.RandomAffine(
            recipe.rotation, (0.05, 0.05), (0.9, 1.1), p=0.7, padding_mode="reflection"
        )

    @property
    def steps(self) -> int:
        """Number of steps per epoch."""
        return max(1, self.images // self._recipe.batch)

    def _read(self, source: Path | Uint8Array) -> Uint8Array:
        image = self._store.read(source) if isinstance(source, Path) else source
        size = self._recipe.size
        if image.shape[:2] != (size, size):
            method = cv2.INTER_AREA if min(image.shape[:2]) > size else cv2.INTER_LINEAR
            image = cv2.resize(image, (size, size), interpolation=method)
        return image

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """This process's share of the batch of one step.

        Args:
            step: Number of the step, from 0.

        Returns:
            First images, augmented second images and the second images with drawn defects, each (N, 3, size, size)
            float32 in 0..1, and masks of the defects (N, size, size) bool. `group` consecutive pairs show the same
            product. Without a margin loss there are no images with defects and no masks.
        """
        recipe = self._recipe
        rng = np.random.default_rng([recipe.seed, 1, step, self._workers.rank])
        share = self._workers.share(recipe.batch)
        weights = np.array([len(product) for product in self._products], np.float64)
        products = rng.choice(len(self._products), max(share // recipe.group, 1), p=weights / weights.sum())
        first, second = [], []
        for index in products:
            product = self._products[index]
            for _ in range(recipe.group):
                a, b = rng.choice(len(product), 2, replace=False)
                first.append(self._read(product[a]))
                second.append(self._read(product[b]))
        first_images, second_images = _tensor(first), self._augment(_tensor(second), int(rng.integers(2**31)))
        if recipe.register:
            second_images = _tensor([in_pose_of(a, b) for a, b in zip(first, _pixels(second_images), strict=True)])
        if recipe.margin == 0:
            no_masks = torch.zeros(0, recipe.size, recipe.size, dtype=torch.bool)
            return first_images, second_images, second_images[:0], no_masks
        clean = _pixels(second_images)
        defective = [draw_defects(image, rng) for image in clean]
        masks = torch.from_numpy(np.stack([mask for _, mask in defective]))
        return first_images, second_images, _tensor([image for image, _ in defective]), masks

    def _augment(self, images: torch.Tensor, seed: int) -> torch.Tensor:
        if self._photometric is not None:
            images = self._photometric(images, seed)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            return self._geometric(images)


def draw_defects(image: Uint8Array, rng: np.random.Generator) -> tuple[Uint8Array, np.ndarray]:
    """Draw one to three defects of random kind, size and contrast.

    Args:
        image: (H, W, 3) uint8.
        rng: Source of randomness.

    Returns:
        The image with defects (H, W, 3) uint8, and a mask (H, W) bool, True where it visibly differs.
    """
    defective = np.ascontiguousarray(image)
    for _ in range(int(rng.integers(1, 4))):
        size = float(np.exp(rng.uniform(np.log(0.015), np.log(0.12))))
        contrast = float(rng.uniform(0.2, 0.9))
        kind = int(rng.integers(4))
        if kind == 0:
            defective = displaced_patch(defective, rng, 2.2 * size)
        elif kind == 1:
            defective = scratch(defective, rng, 5 * size, float(rng.uniform(0.003, 0.012)), contrast)
        elif kind == 2:
            defective = blot(defective, rng, size, contrast)
        else:
            defective = missing_piece(defective, rng, size)
    # A difference of up to 12 of 255 gray levels is hardly visible and does not count as a defect.
    mask = np.abs(defective.astype(np.int16) - image.astype(np.int16)).max(axis=2) > 12
    return defective, mask


def _generated(recipe: TrainingRecipe, loaders: int) -> list[Sequence[Path | Uint8Array]]:
    from fewshot_ad.training.parts import render

    products = [(name, n) for name in generated_categories(recipe.leave_out) for n in range(recipe.generated)]

    def product(index: int) -> list[Path | Uint8Array]:
        name, variant = products[index]
        variant += recipe.seed * 1000
        return [render(name, n, recipe.size, variant=variant) for n in range(recipe.generated_images)]

    return made(product, len(products), loaders)


def in_pose_of(first: Uint8Array, second: Uint8Array) -> Uint8Array:
    """An image, turned and shifted until its part lies as on another image of the product.

    Where both show their turn up to half a turn, it is taken as that; where only a whole turn tells, as that; and where
    neither does, the image stays as it lies.

    Args:
        first: (H, W, 3) uint8 RGB.
        second: (H, W, 3) uint8 RGB.

    Returns:
        The second image, (H, W, 3) uint8 RGB, mirrored beyond its edges.
    """
    estimator = pose_estimator(1)
    poses = estimator([first, second])
    lengths = np.abs(poses.moments).min(axis=0)
    order = next((m for m in (2, 1) if lengths[ORDERS.index(m)] >= MIN_MOMENT), None)
    if order is None:
        return second
    across, down = (float(value) for value in poses.center[0])
    phase = float(np.angle(poses.moments[0, ORDERS.index(order)]))
    forward = Registration(estimator.sha256, order, phase, (across, down)).forward(second, estimator)
    return np.asarray(cv2.warpAffine(second, forward, second.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def _pixels(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    """(N, 3, H, W) float in 0..1 -> (N, H, W, 3) uint8."""
    return (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


def _tensor(images: Sequence[Uint8Array]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
