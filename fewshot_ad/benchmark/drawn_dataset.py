"""A dataset from good images alone: some of them are for the test, and defects are drawn on these."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fewshot_ad import arguments
from fewshot_ad.arrays import BoolArray, Progress, Uint8Array
from fewshot_ad.benchmark.support import by_hash
from fewshot_ad.enrollment.defects import blot, displaced_patch, scratch
from fewshot_ad.enrollment.support import SupportImage, read_support
from fewshot_ad.errors import DatasetError
from fewshot_ad.images import ImageSource
from fewshot_ad.storage import replace_folder, write_failure

# Sides of the drawn defects, as shares of the image's scale, the square root of its area.
SIZES = (0.01, 0.06)
CONTRASTS = (0.25, 0.7)
# A pixel belongs to a defect where it changed by more than this, of 255.
VISIBLE = 8
ATTEMPTS = 20
NOTE_FILE = "DRAWN.md"
NOTE = """\
# Drawn defects

The good images are photographs. All defective ones, the folders `drawn_*`, are good images of the test with defects
that a program has drawn: figures measured on them say how well a method finds such drawings, which is not how well it
finds the defects of a real part. `fewshot-ad datasets draw` made it, seed {seed}; layout mvtec, category `{category}`.
"""

_DRAW: Mapping[str, Callable[[Uint8Array, np.random.Generator, float, float], Uint8Array]] = {
    "drawn_blot": lambda image, rng, size, contrast: blot(image, rng, size / 1.5, contrast),
    "drawn_displaced": lambda image, rng, size, contrast: displaced_patch(image, rng, 2 * size),
    "drawn_scratch": lambda image, rng, size, contrast: scratch(image, rng, 5 * size, size / 4, contrast),
}


@dataclass(frozen=True)
class DrawnDataset:
    """What was written.

    Attributes:
        folder: Root of the dataset, in MVTec layout.
        category: Its only category.
        train: Good images to learn from.
        test_good: Good images of the test.
        test_defective: Images of the test with a drawn defect.
        notes: What was noticed of the images.
    """

    folder: Path
    category: str
    train: int
    test_good: int
    test_defective: int
    notes: tuple[str, ...]


def draw_dataset(
    images: ImageSource | list[ImageSource],
    folder: str | os.PathLike[str],
    *,
    category: str = "part",
    test_share: float = 1 / 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> DrawnDataset:
    """Write a dataset in MVTec layout whose defects are drawn, for who has photographs of good parts alone.

    A share of the images, by hash of their content, is for the test: as they are, and once with each kind of drawn
    defect. None of the images to learn from has anything of them. The folder is written whole or not at all.

    Args:
        images: Good images, in any form `Inspector.from_support` takes, at least three.
        folder: Folder to write; it may exist if it is empty.
        category: Name of the product.
        test_share: Share of the images that is for the test, 0.05 to 0.9.
        seed: Of what is drawn, and where.
        progress: Called as `progress("draw", done, total)`.

    Raises:
        SupportSetError: No image is usable.
        DatasetError: There are too few, or the folder cannot be written.
    """
    arguments.number(test_share, "test_share", 0.05, 0.9)
    arguments.whole_number(seed, "seed", 0)
    if not re.fullmatch(r"\w[\w .-]*", category):
        raise DatasetError(f"expected a category that can be the name of a folder, got {category!r}.")
    folder = Path(arguments.file_name(folder, "folder", DatasetError))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder}: expected a new or empty folder, but it is not. Choose another.")
    support = read_support(images, progress=progress)
    if len(support.images) < 3:
        raise DatasetError(
            f"expected at least three different good images, two to learn from and one to test, got "
            f"{len(support.images)}. Take more photographs."
        )
    shuffled = by_hash(support.images, lambda image: image.sha256, "test")
    count = min(max(1, round(test_share * len(shuffled))), len(shuffled) - 2)
    tested, learned = shuffled[:count], shuffled[count:]
    try:
        with replace_folder(folder, (), NOTE_FILE) as staging:
            defective = _write_images(staging / category, learned, tested, seed, progress)
            (staging / NOTE_FILE).write_text(NOTE.format(seed=seed, category=category), encoding="utf-8")
    except OSError as error:
        raise DatasetError(write_failure(folder, error)) from error
    notes = support.notes
    if defective < len(_DRAW) * len(tested):
        missing = len(_DRAW) * len(tested) - defective
        notes = (*notes, f"{missing} defect(s) are not there: drawn, they did not show.")
    return DrawnDataset(folder, category, len(learned), len(tested), defective, notes)


def _write_images(
    root: Path, learned: Sequence[SupportImage], tested: Sequence[SupportImage], seed: int, progress: Progress | None
) -> int:
    """Write the images of a category, in MVTec layout; returns the number of defective ones."""
    defective = 0
    for image in learned:
        _write(root / "train/good" / f"{_stem(image)}.png", _bgr(image.pixels))
    for done, image in enumerate(tested, start=1):
        _write(root / "test/good" / f"{_stem(image)}.png", _bgr(image.pixels))
        for kind, (drawn, mask) in _drawn(image, seed):
            defective += 1
            _write(root / "test" / kind / f"{_stem(image)}.png", _bgr(drawn))
            _write(root / "ground_truth" / kind / f"{_stem(image)}_mask.png", mask.astype(np.uint8) * 255)
        if progress is not None:
            progress("draw", done, len(tested))
    return defective


def _drawn(image: SupportImage, seed: int) -> Iterator[tuple[str, tuple[Uint8Array, BoolArray]]]:
    """One image with each kind of defect that shows on it, and where; the same whatever other images there are."""
    for number, (kind, draw) in enumerate(_DRAW.items()):
        rng = np.random.default_rng([seed, number, int(image.sha256[:12], 16)])
        for _ in range(ATTEMPTS):
            size, contrast = float(np.exp(rng.uniform(*np.log(SIZES)))), float(rng.uniform(*CONTRASTS))
            drawn = draw(image.pixels, rng, size, contrast)
            changed = np.abs(drawn.astype(np.int16) - image.pixels).max(axis=2) > VISIBLE
            # Inside a defect some pixels are as they were by chance.
            mask = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)) > 0
            # A patch copied onto its like, or a faint blot, shows nothing: drawn anew elsewhere.
            if mask.sum() >= 4:
                yield kind, (drawn, mask)
                break


def _stem(image: SupportImage) -> str:
    """A file name that tells where the image is from, and differs from all others."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', Path(image.name).stem).strip('-') or 'image'}-{image.sha256[:8]}"


def _bgr(image: Uint8Array) -> Uint8Array:
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


def _write(path: Path, image: Uint8Array) -> None:
    """Write (H, W, 3) BGR or (H, W) as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
