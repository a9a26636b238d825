"""Generated pictures in the place of DTD, Imagenette and ImageNet, which some of anomalib's methods download."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.training.collage import collage
from fewshot_ad.training.parts import CATEGORIES, MIN_SIZE, render


def generated_pictures(count: int, side: int, seed: int) -> list[Uint8Array]:
    """Collages of generated parts and noise, (side, side, 3) uint8 RGB each; the same seed gives the same ones."""
    names = np.random.default_rng([seed, 23]).permutation(sorted(CATEGORIES))[:8]
    parts = [render(str(name), seed, max(side, MIN_SIZE), variant=seed) for name in names]
    return [collage(parts, seed * 100_003 + n, side) for n in range(count)]


def write_textures(folder: Path, count: int, side: int, seed: int) -> None:
    """The same as PNG files in a sub-folder of a new folder, which is how anomalib and torchvision read them."""
    inside = folder / "generated"
    inside.mkdir(parents=True)
    for n, picture in enumerate(generated_pictures(count, side, seed)):
        cv2.imwrite(str(inside / f"{n:04d}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
