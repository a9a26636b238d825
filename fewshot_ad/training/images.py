"""Training images: folders -> categories of image files -> arrays, cached in memory up to a limit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.documents.naming import unknown
from fewshot_ad.errors import FewshotADError, TrainingError
from fewshot_ad.images import SUFFIXES, read_image

log = logging.getLogger(__name__)

# Folders of the common dataset layouts that must not be trained on.
TEST_FOLDERS = frozenset({"test", "test_public", "test_private", "ground_truth"})
CACHE_BYTES = 4 << 30
# Names that stand in a recipe's folders for the built-in generators; collages are for distillation only.
GENERATED = "parts"
COLLAGES = "collages"


@dataclass(frozen=True)
class Category:
    """Good images of one category.

    Attributes:
        name: Name of the category, for the log and the card.
        files: The image files.
    """

    name: str
    files: tuple[Path, ...]


def find_categories(folders: Sequence[str | Path]) -> list[Category]:
    """List the good images below folders, by category.

    Args:
        folders: Each is a category in the layout of MVTec AD (with `train/good` below it), a folder of such
            categories, or a plain folder of good images.

    Returns:
        One category per product or plain folder, sorted by name; never images of a test split.

    Raises:
        TrainingError: A folder does not exist, holds no image, or belongs to a test split.
    """
    categories: dict[str, Category] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise TrainingError(f"expected a folder of good images, but {folder} is not one. Check the path.")
        if TEST_FOLDERS & {part.lower() for part in folder.resolve().parts[-3:]}:
            raise TrainingError(
                f"{folder} belongs to a test split: training on it would make every measurement on it worthless. "
                "Give the folder of the good training images, for example PRODUCT/train/good."
            )
        good_folders = _mvtec_good_folders(folder)
        for good in good_folders or [folder]:
            files = tuple(sorted(p for p in good.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES))
            if not files:
                raise TrainingError(
                    f"{good}: expected images ({', '.join(sorted(SUFFIXES))}), found none. Give folders in MVTec "
                    "layout (PRODUCT/train/good) or plain folders of good images, or leave this one out."
                )
            name = good.parents[1].name if good_folders else folder.resolve().name
            if name in categories and categories[name].files != files:
                raise TrainingError(
                    f"expected each category once, got {name!r} from {categories[name].files[0].parent} and from "
                    f"{good}. Rename one of the folders."
                )
            categories[name] = Category(name, files)
    return [categories[name] for name in sorted(categories)]


def check_folders(
    folders: Sequence[str], least: int, generators: Sequence[str] = (GENERATED,), leave_out: Sequence[str] = ()
) -> None:
    """Make sure that a recipe's folders can be trained on; no image is opened.

    Args:
        folders: Folders, see `find_categories`, and names of built-in generators.
        least: The least number of images per category.
        generators: Names of the generators.
        leave_out: Names of categories that are not trained on.

    Raises:
        TrainingError: A folder cannot be used, see `find_categories`; a category has too few images; or there is no
            category to leave out, or none left.
    """
    names: set[str] = set()
    for folder in folders:
        if folder in generators:
            names |= set(generated_categories())
            continue
        for category in find_categories([folder]):
            names.add(category.name)
            if len(category.files) < least and category.name not in leave_out:
                raise TrainingError(
                    f"category {category.name!r}: expected at least {least} images, got {len(category.files)}. Add "
                    f"images, or leave the category out (leave_out; command line: --leave-out {category.name})."
                )
    for name in leave_out:
        if name not in names:
            raise TrainingError(f"leave_out: {unknown(name, sorted(names), 'a category of the folders')}.")
    if not names - set(leave_out):
        raise TrainingError(f"expected a category to train on, got all of them in leave_out: {', '.join(leave_out)}.")


def generated_categories(leave_out: Sequence[str] = ()) -> list[str]:
    """The categories of the built-in generator of parts, without some."""
    from fewshot_ad.training.parts import CATEGORIES

    return [name for name in CATEGORIES if name not in leave_out]


def _mvtec_good_folders(folder: Path) -> list[Path]:
    own = folder / "train" / "good"
    if own.is_dir():
        return [own]
    return [good for child in sorted(folder.iterdir()) if (good := child / "train" / "good").is_dir()]


class ImageStore:
    """Reads images, shrinks them, and caches them in memory as long as there is room.

    Args:
        short_side: Images with a longer short side are shrunk to this short side, in pixels.
        cache_bytes: Size limit of the cache; images that do not fit are decoded each time.
    """

    def __init__(self, short_side: int, cache_bytes: int = CACHE_BYTES) -> None:
        self.short_side = short_side
        self.cache_bytes = cache_bytes
        self._cache: dict[Path, Uint8Array] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, path: Path) -> Uint8Array:
        """(H, W, 3) uint8 RGB.

        Raises:
            ImageError: The file is not an image.
        """
        cached = self._cache.get(path)
        if cached is not None:
            return cached
        image = read_image(path)
        height, width = image.shape[:2]
        factor = self.short_side / min(height, width)
        if factor < 1:
            size = (max(self.short_side, round(width * factor)), max(self.short_side, round(height * factor)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        with self._lock:
            if self._bytes + image.nbytes <= self.cache_bytes:
                self._cache[path] = image
                self._bytes += image.nbytes
        return image


def drop_unreadable(categories: Sequence[Category], store: ImageStore) -> tuple[list[Category], list[str]]:
    """Read every image once and leave out those that cannot be read.

    Args:
        categories: The categories.
        store: Reads and caches the images.

    Returns:
        The categories with their readable images, and one message per image that was left out.

    Raises:
        TrainingError: A category has no readable image left.
    """
    readable, failures = [], []
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
        readable.append(Category(category.name, tuple(files)))
    return readable, failures
