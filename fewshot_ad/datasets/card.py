"""Dataset cards: what is published about a dataset; and the registry of dataset readers, filled by a decorator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from fewshot_ad.datasets.sample import Sample
from fewshot_ad.documents.naming import unknown
from fewshot_ad.errors import DatasetError

Masks: TypeAlias = Literal["pixel", "boxes", "none"]


class Counts(NamedTuple):
    """Number of images of one category in the published files, split as the reader splits them; None = unknown."""

    train_good: int | None
    test_good: int | None
    test_defective: int | None
    validation_good: int | None = 0
    train_defective: int | None = 0


@dataclass(frozen=True)
class Archive:
    """A file that everybody can download from the publisher without filling in a form.

    Attributes:
        url: Address of the file.
        sha256: Hash of the file; empty where the publisher changes the file now and then.
    """

    url: str
    sha256: str = ""


@dataclass(frozen=True)
class DatasetCard:
    """What is published about one dataset.

    Attributes:
        name: The name to open it by: lower case, words joined by `_`.
        title: Its name as the publisher spells it.
        categories: Names of the categories, as published; empty where every copy has its own.
        license: SPDX identifier where there is one, else what the publisher says in a few words.
        source: Address of the publisher's page.
        citation: Authors, year, title and venue.
        counts: Number of images by category, where known.
        images: Number of images in total; None = unknown.
        size_gb: Size of the publisher's archive in 10^9 bytes; None = unknown.
        masks: Whether defects are annotated by pixel masks, by boxes or not at all.
        layout: Description of the folder tree, for people.
        marks: Globs relative to the root by which the layout is recognized: each matches a file in every copy.
        mask_of: Regular expression that matches the path of a mask file relative to the root, and the replacement
            that turns it into the path of its image without suffix; None for a dataset without mask files.
        archive: The file to download; None if the publisher requires a form.
    """

    name: str
    title: str
    categories: tuple[str, ...]
    license: str
    source: str
    citation: str
    images: int | None
    masks: Masks
    layout: str
    marks: tuple[str, ...]
    counts: Mapping[str, Counts] = field(default_factory=dict)
    size_gb: float | None = None
    mask_of: tuple[str, str] | None = None
    archive: Archive | None = None


Reader: TypeAlias = Callable[[Path], Iterator[Sample]]
Decorated = TypeVar("Decorated", bound=Reader)
_REGISTRY: dict[str, tuple[DatasetCard, Reader]] = {}


def dataset(card: DatasetCard) -> Callable[[Decorated], Decorated]:
    """Register a reader: a generator that takes the root folder, yields all samples and opens no image."""

    def register(reader: Decorated) -> Decorated:
        if card.name in _REGISTRY:
            raise ValueError(f"two datasets are called {card.name!r}.")
        _REGISTRY[card.name] = (card, reader)
        return reader

    return register


def dataset_cards() -> dict[str, DatasetCard]:
    """The cards of all datasets, by name."""
    return {name: card for name, (card, _) in sorted(_REGISTRY.items())}


def registered(name: str) -> tuple[DatasetCard, Reader]:
    """Card and reader of the dataset of a name.

    Raises:
        DatasetError: No dataset has that name.
    """
    if name not in _REGISTRY:
        raise DatasetError(f"{unknown(name, _REGISTRY, 'a dataset')}. `fewshot-ad datasets` describes them.")
    return _REGISTRY[name]
