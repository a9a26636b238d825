"""Batches of pairs of good images, and the defects that are drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import kornia.augmentation as augment
import numpy as np
import torch

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.enrollment.defects import blot, displaced_patch, missing_piece, scratch
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.augmentation import PhotometricJitter
from fewshot_ad.training.images import GENERATED, ImageStore, find_categories, readable
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.run import Workers


class Pairs:
    """Batches of pairs by step number.

    Args:
        recipe: What to read and how to change it.
        crew: The processes that share a batch.

    Raises:
        TrainingError: A folder or a category cannot be used.
    """

    def __init__(self, recipe: TrainingRecipe, crew: Workers) -> None:
        self._recipe, self._crew = recipe, crew
        self._store = ImageStore(max(recipe.size, 256))
        self._products: list[Sequence[Path | Uint8Array]] = []
        data: list[dict[str, Any]] = []
        for n, folder in enumerate(recipe.folders):
            if folder == GENERATED:
                self._products += _generated(recipe)
                count = recipe.generated * recipe.generated_images
                data.append({"name": "generated parts", "images": count * _categories(), "license": "Apache-2.0"})
                continue
            categories, _ = readable(find_categories([folder]), self._store)
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
        self._light = PhotometricJitter(recipe.photometric) if recipe.photometric > 0 else None
        self._move = augment.RandomAffine(recipe.rotation, (0.05, 0.05), (0.9, 1.1), p=0.7, padding_mode="reflection")

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return max(1, self.images // self._recipe.batch)

    def _read(self, picture: Path | Uint8Array) -> Uint8Array:
        image = self._store.read(picture) if isinstance(picture, Path) else picture
        size = self._recipe.size
        if image.shape[:2] != (size, size):
            smaller = min(image.shape[:2]) > size
            way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            image = cv2.resize(image, (size, size), interpolation=way)
        return image

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """This process's share of a step.

        Returns:
            First images, augmented second ones, the second ones with drawn defects, each (N, 3, size, size)
            float32 in 0..1, and where the defects are, (N, size, size) bool. Pairs of one category stand together.
        """
        recipe = self._recipe
        rng = np.random.default_rng([recipe.seed, 1, step, self._crew.rank])
        share = self._crew.share(recipe.batch)
        weights = np.array([len(product) for product in self._products], np.float64)
        chosen = rng.choice(len(self._products), max(share // recipe.group, 1), p=weights / weights.sum())
        first, second = [], []
        for index in chosen:
            product = self._products[index]
            for _ in range(recipe.group):
                a, b = rng.choice(len(product), 2, replace=False)
                first.append(self._read(product[a]))
                second.append(self._read(product[b]))
        one, two = _tensor(first), _tensor(second)
        seed = int(rng.integers(2**31))
        if self._light is not None:
            two = self._light(two, seed)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            two = self._move(two)
        if recipe.margin == 0:
            return one, two, two[:0], torch.zeros(0, recipe.size, recipe.size, dtype=torch.bool)
        clean = (two.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        painted = [draw_defects(image, rng) for image in clean]
        masks = torch.from_numpy(np.stack([mask for _, mask in painted]))
        return one, two, _tensor([image for image, _ in painted]), masks


def _categories() -> int:
    from fewshot_ad.training.parts import CATEGORIES

    return len(CATEGORIES)


def _generated(recipe: TrainingRecipe) -> list[Sequence[Path | Uint8Array]]:
    from fewshot_ad.training.parts import CATEGORIES, render

    return [
        [render(name, n, recipe.size, variant=recipe.seed * 1000 + variant) for n in range(recipe.generated_images)]
        for name in CATEGORIES
        for variant in range(recipe.generated)
    ]


def _tensor(images: Sequence[Uint8Array]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def draw_defects(image: Uint8Array, rng: np.random.Generator) -> tuple[Uint8Array, np.ndarray]:
    """One to three drawn defects of widely varying size and contrast.

    Args:
        image: (H, W, 3) uint8.
        rng: Source of randomness.

    Returns:
        The image with defects, and (H, W) bool where it visibly differs.
    """
    painted = np.ascontiguousarray(image)
    for _ in range(int(rng.integers(1, 4))):
        size = float(np.exp(rng.uniform(np.log(0.015), np.log(0.12))))
        contrast = float(rng.uniform(0.2, 0.9))
        kind = int(rng.integers(4))
        if kind == 0:
            painted = displaced_patch(painted, rng, 2.2 * size)
        elif kind == 1:
            painted = scratch(painted, rng, 5 * size, float(rng.uniform(0.003, 0.012)), contrast)
        elif kind == 2:
            painted = blot(painted, rng, size, contrast)
        else:
            painted = missing_piece(painted, rng, size)
    differs = np.abs(painted.astype(np.int16) - image.astype(np.int16)).max(axis=2) > 12
    return painted, differs
