"""Opens a local copy of a dataset after checking its layout, and lists its categories and samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fewshot_ad.datasets.card import DatasetCard, Reader, dataset_cards, registered
from fewshot_ad.datasets.files import entries, subfolders
from fewshot_ad.datasets.sample import Sample, Split
from fewshot_ad.errors import DatasetError

# How many levels and folders below a folder are searched for the layout, to name the right folder in a message.
MAX_DEPTH, MAX_FOLDERS = 4, 500


@dataclass(frozen=True)
class Dataset:
    """A local copy of a dataset.

    Attributes:
        card: What is published about the dataset.
        root: Folder of the copy.
        reader: Generator of all samples under the root.
    """

    card: DatasetCard
    root: Path
    reader: Reader

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The categories that the copy holds, in the order of the reader."""
        if len(self.card.categories) == 1:
            return self.card.categories
        return tuple(dict.fromkeys(sample.category for sample in self.reader(self.root)))

    def samples(self, category: str | None = None, split: Split | None = None) -> Iterator[Sample]:
        """The samples, one after the other; no image is opened.

        Args:
            category: Only samples of this category; None = of all.
            split: Only samples of `train`, `validation` or `test`; None = of all.

        Raises:
            DatasetError: There is no such category or split; while iterating, a list of the dataset cannot be read.
        """
        if split not in (None, "train", "validation", "test"):
            raise DatasetError(f"expected split train, validation or test, got {split!r}.")
        if category is not None and category not in self.categories:
            raise DatasetError(
                f"{self.root}: expected a category among {', '.join(self.categories)}, got {category!r}."
            )
        return (
            sample
            for sample in self.reader(self.root)
            if category in (None, sample.category) and split in (None, sample.split)
        )


def open_dataset(name: str, root: Path | str) -> Dataset:
    """Open a local copy of a dataset in its published layout.

    Args:
        name: A name in `dataset_cards()`.
        root: The folder in which the layout on the dataset's card starts.

    Raises:
        DatasetError: There is no dataset of that name, or the folder does not have its layout; the message says what
            is missing and which layout the folder has instead.
    """
    card, reader = registered(name)
    root = Path(root)
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise DatasetError(f"{root}: expected the folder of {card.title}, but {what} is there. Check the path.")
    missing = _missing(card, root)
    if missing:
        content = ", ".join(path.name for path in entries(root)[:6]) or "nothing"
        raise DatasetError(
            f"{root}: expected the layout of {card.title}, but nothing matches {', '.join(missing)}; it "
            f"holds {content}. {_advice(card, root)}"
        )
    # A card without categories is for one's own images, which may lie in a folder of any layout.
    other = recognize(root) if card.categories else None
    if other is not None and _rank(other, root) > _rank(card, root):
        raise DatasetError(
            f"{root}: expected the layout of {card.title}, but it looks like {other.title}. Open it as {other.name!r}."
        )
    return Dataset(card, root, reader)


def recognize(root: Path) -> DatasetCard | None:
    """The dataset whose layout a folder has, the most specific one if several match; None if none does."""
    matches = [card for card in dataset_cards().values() if not _missing(card, root)]
    return max(matches, key=lambda card: _rank(card, root), default=None)


def find_layout(card: DatasetCard, root: Path) -> Path | None:
    """The folder in which a dataset's layout starts: the root or the nearest folder below it; None if there is none."""
    queue = deque([(root, 0)])
    for _ in range(MAX_FOLDERS):
        if not queue:
            break
        folder, depth = queue.popleft()
        if not _missing(card, folder):
            return folder
        if depth < MAX_DEPTH:
            queue.extend((below, depth + 1) for below in subfolders(folder))
    return None


def _missing(card: DatasetCard, root: Path) -> list[str]:
    return [mark for mark in card.marks if next(root.glob(mark), None) is None]


def _rank(card: DatasetCard, root: Path) -> tuple[bool, int]:
    """How specifically a folder matches a card: category names count more than the number of marks."""
    return any((root / category).is_dir() for category in card.categories), len(card.marks)


def _advice(card: DatasetCard, root: Path) -> str:
    other = recognize(root)
    if other is not None:
        return f"It looks like {other.title}: open it as {other.name!r}."
    for folder in (root.parent, root.parent.parent):
        if not _missing(card, folder):
            return f"That layout starts from {folder}: name that folder."
    below = find_layout(card, root)
    if below is not None:
        return f"That layout starts from {below}: name that folder."
    return f"`fewshot-ad datasets show {card.name}` prints the layout."
