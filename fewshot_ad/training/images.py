"""Training images: folders -> categories -> decoded arrays, kept in memory within a limit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import FewshotADError, TrainingError
from fewshot_ad.images import SUFFIXES, read_image

log = logging.getLogger(__name__)

# Folders of the common dataset layouts that hold what is only for measuring.
HELD_BACK = frozenset({"test", "test_public", "test_private", "ground_truth"})
CACHE_BYTES = 4 << 30
# In a recipe's folders: the built-in generators instead of a folder; collages are for distillation only.
GENERATED = "parts"
COLLAGES = "collages"


@dataclass(frozen=True)
class Category:
    """Good images of one kind of part.

    Attributes:
        name: For the log and the card.
        files: The images.
    """

    name: str
    files: tuple[Path, ...]


def find_categories(folders: Sequence[str | Path]) -> list[Category]:
    """Categories of good images.

    Args:
        folders: Each is a product in MVTec layout (`train/good` below it), a folder of such products, or a plain
            folder of good images.

    Returns:
        One category a product or plain folder, sorted by name. Nothing is ever taken from a test split.

    Raises:
        TrainingError: A folder does not exist, holds no image, or belongs to a test split.
    """
    found: dict[str, Category] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise TrainingError(f"expected a folder of good images, but {folder} is not one. Check the path.")
        if HELD_BACK & {part.lower() for part in folder.resolve().parts[-3:]}:
            raise TrainingError(
                f"{folder} belongs to a test split: training on it would make every measurement on it worthless. "
                "Give the folder of the good training images, for example PRODUCT/train/good."
            )
        goods = _mvtec_good(folder)
        for good in goods or [folder]:
            files = tuple(sorted(p for p in good.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES))
            if not files:
                raise TrainingError(
                    f"{good}: expected images ({', '.join(sorted(SUFFIXES))}), found none. Give folders in MVTec "
                    "layout (PRODUCT/train/good) or plain folders of good images, or leave this one out."
                )
            name = good.parents[1].name if goods else folder.resolve().name
            if name in found and found[name].files != files:
                raise TrainingError(
                    f"expected each category once, got {name!r} from {found[name].files[0].parent} and from {good}. "
                    "Rename one of the folders."
                )
            found[name] = Category(name, files)
    return [found[name] for name in sorted(found)]


def _mvtec_good(folder: Path) -> list[Path]:
    own = folder / "train" / "good"
    if own.is_dir():
        return [own]
    return [good for child in sorted(folder.iterdir()) if (good := child / "train" / "good").is_dir()]


class ImageStore:
    """Decoded images by path, shrunk to a short side and kept in memory as long as there is room.

    Args:
        short_side: Images are shrunk until their short side is this many pixels; smaller ones are left alone.
        cache_bytes: Upper limit of what is kept; what does not fit is decoded anew each time.
    """

    def __init__(self, short_side: int, cache_bytes: int = CACHE_BYTES) -> None:
        self.short_side = short_side
        self.cache_bytes = cache_bytes
        self._kept: dict[Path, Uint8Array] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, path: Path) -> Uint8Array:
        """(H, W, 3) uint8 RGB.

        Raises:
            ImageError: The file is not an image.
        """
        kept = self._kept.get(path)
        if kept is not None:
            return kept
        image = read_image(path)
        height, width = image.shape[:2]
        factor = self.short_side / min(height, width)
        if factor < 1:
            size = (max(self.short_side, round(width * factor)), max(self.short_side, round(height * factor)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        with self._lock:
            if self._bytes + image.nbytes <= self.cache_bytes:
                self._kept[path] = image
                self._bytes += image.nbytes
        return image


def readable(categories: Sequence[Category], store: ImageStore) -> tuple[list[Category], list[str]]:
    """Read every image once: those that can be read, and a message for each that cannot.

    Raises:
        TrainingError: A category has no readable image left.
    """
    kept, failures = [], []
    for category in categories:
        files = []
        for path in category.files:
            try:
                store.read(path)
                files.append(path)
            except FewshotADError as error:
                failures.append(str(error))
                log.warning("left out: %s", error)
        if not files:
            raise TrainingError(
                f"category {category.name!r}: none of its {len(category.files)} images can be read "
                f"(first: {failures[-1]}). Leave it out, or repair the files."
            )
        kept.append(Category(category.name, tuple(files)))
    return kept, failures
