"""Opening a local copy: is it that layout, and what is in it."""

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

# How far below a folder the layout is looked for, to name it in a message.
MAX_DEPTH, MAX_FOLDERS = 4, 500


@dataclass(frozen=True)
class Dataset:
    """A local copy of a dataset.

    Attributes:
        card: What is published of it.
        root: Its folder.
        reader: Lists its samples.
    """

    card: DatasetCard
    root: Path
    reader: Reader

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The categories that are there, in the order of the reader."""
        if len(self.card.categories) == 1:
            return self.card.categories
        return tuple(dict.fromkeys(sample.category for sample in self.reader(self.root)))

    def samples(self, category: str | None = None, split: Split | None = None) -> Iterator[Sample]:
        """The samples, one after the other; no image is opened.

        Args:
            category: Only those of this category.
            split: Only those of `train`, `validation` or `test`.

        Raises:
            DatasetError: There is no such category or split, or a list of the dataset cannot be read.
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
    """A local copy of a dataset in its published layout.

    Args:
        name: A name in `dataset_cards()`.
        root: The folder that the layout on its card starts from.

    Raises:
        DatasetError: There is no dataset of that name, or the folder is not laid out like it; the message says what is
            missing and what the folder looks like instead.
    """
    card, reader = registered(name)
    root = Path(root)
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise DatasetError(f"{root}: expected the folder of {card.title}, but {what} is there. Check the path.")
    missing = _missing(card, root)
    if missing:
        got = ", ".join(path.name for path in entries(root)[:6]) or "nothing"
        raise DatasetError(
            f"{root}: expected the layout of {card.title}, but nothing matches {', '.join(missing)}; it holds {got}. "
            f"{_advice(card, root)}"
        )
    # Whoever lists images of his own may do so anywhere.
    other = recognize(root) if card.categories else None
    if other is not None and _rank(other, root) > _rank(card, root):
        raise DatasetError(
            f"{root}: expected the layout of {card.title}, but it looks like {other.title}. Open it as {other.name!r}."
        )
    return Dataset(card, root, reader)


def recognize(root: Path) -> DatasetCard | None:
    """The dataset whose layout a folder has, the most particular one if several fit; None if none does."""
    fitting = [card for card in dataset_cards().values() if not _missing(card, root)]
    return max(fitting, key=lambda card: _rank(card, root), default=None)


def find_layout(card: DatasetCard, root: Path) -> Path | None:
    """The folder nearest below a root, or the root itself, that a dataset's layout starts from."""
    waiting = deque([(root, 0)])
    for _ in range(MAX_FOLDERS):
        if not waiting:
            break
        folder, depth = waiting.popleft()
        if not _missing(card, folder):
            return folder
        if depth < MAX_DEPTH:
            waiting.extend((below, depth + 1) for below in subfolders(folder))
    return None


def _missing(card: DatasetCard, root: Path) -> list[str]:
    return [mark for mark in card.marks if next(root.glob(mark), None) is None]


def _rank(card: DatasetCard, root: Path) -> tuple[bool, int]:
    """Published names of categories count more than the shape of the tree."""
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
