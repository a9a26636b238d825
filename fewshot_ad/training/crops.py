"""Batches of random crops of any images, for distillation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.training.augmentation import PhotometricJitter, random_crop
from fewshot_ad.training.distillation_recipe import DistillationRecipe
from fewshot_ad.training.images import (
    COLLAGES,
    GENERATED,
    ImageStore,
    drop_unreadable,
    find_categories,
    generated_categories,
)
from fewshot_ad.training.loaders import made
from fewshot_ad.training.run import Workers


class Crops:
    """Batches of crops, each determined by its step number alone."""

    def __init__(self, recipe: DistillationRecipe, workers: Workers, loaders: int) -> None:
        self._recipe, self._workers = recipe, workers
        workers.share(recipe.batch)  # what does not fit is said before any image is read
        self._store = ImageStore(recipe.short_side)
        self._sources: list[Path | Uint8Array] = []
        folders = [f for f in recipe.folders if f not in (GENERATED, COLLAGES)]
        if folders:
            found = [c for c in find_categories(folders) if c.name not in recipe.leave_out]
            categories, _ = drop_unreadable(found, self._store)
            self._sources += [path for category in categories for path in category.files]
        if {GENERATED, COLLAGES} & set(recipe.folders):
            from fewshot_ad.training.collage import collage
            from fewshot_ad.training.parts import render

            # Each image shows another product: a student needs variety, not pairs.
            products = [(name, n) for name in generated_categories(recipe.leave_out) for n in range(recipe.generated)]

            def part(index: int) -> Uint8Array:
                name, variant = products[index]
                return render(name, recipe.seed, recipe.short_side, variant=variant)

            parts = made(part, len(products), loaders)
            if GENERATED in recipe.folders:
                self._sources += parts
            if COLLAGES in recipe.folders:
                self._sources += made(
                    lambda n: collage(parts, recipe.seed * 1_000_003 + n, recipe.short_side), len(parts), loaders
                )
        self._jitter = PhotometricJitter()

    def batch(self, step: int) -> torch.Tensor:
        """(N, 3, size, size) float32 in 0..1: this process's share of the batch of one step."""
        recipe, workers = self._recipe, self._workers
        rng = np.random.default_rng([recipe.seed, step, workers.rank])
        indices = rng.integers(len(self._sources), size=workers.share(recipe.batch))
        crops = [random_crop(self._read(self._sources[i]), recipe.size, recipe.scales, rng) for i in indices]
        batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        return self._jitter(batch, int(rng.integers(2**31)))

    def _read(self, source: Path | Uint8Array) -> Uint8Array:
        return self._store.read(source) if isinstance(source, Path) else source
