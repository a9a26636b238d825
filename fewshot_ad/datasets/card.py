"""What is known of a dataset before it is read, and the registry of its readers, by decorator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from fewshot_ad.datasets.sample import Sample
from fewshot_ad.errors import DatasetError

Masks: TypeAlias = Literal["pixel", "boxes", "none"]


class Counts(NamedTuple):
    """Images of a category in the published files, split as the reader does; None where that is unknown."""

    train_good: int | None
    test_good: int | None
    test_defective: int | None
    validation_good: int | None = 0
    train_defective: int | None = 0


@dataclass(frozen=True)
class Archive:
    """A file that the publisher gives to everybody, without a form.

    Attributes:
        url: Where it is.
        sha256: Of the file; empty where the publisher changes it now and then.
    """

    url: str
    sha256: str = ""


@dataclass(frozen=True)
class DatasetCard:
    """What to know of a dataset.

    Attributes:
        name: The name users give: lower case, words joined by `_`.
        title: As its publisher spells it.
        categories: As published; empty where every copy has its own.
        license: SPDX identifier where there is one, else what the publisher says in a few words.
        source: The publisher's page.
        citation: Authors, year, title and venue.
        counts: By category, as far as they are known.
        images: In all; None where that is unknown.
        size_gb: Of the publisher's archive in 10^9 bytes; None where that is unknown.
        masks: Whether its defects are marked by pixel, by boxes or not at all.
        layout: Tree of its folders.
        marks: Globs relative to the root, each of which matches something in every copy.
        mask_of: Regular expression of a mask file's path relative to the root, and what makes it the path of its
            image without suffix; None of a dataset without mask files.
        archive: None where a form stands before the download.
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
    """Register a reader: a generator of all samples under a root, which opens no image."""

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
    """Card and reader of a dataset.

    Raises:
        DatasetError: There is none of that name.
    """
    if name not in _REGISTRY:
        raise DatasetError(
            f"expected a dataset among {sorted(_REGISTRY)}, got {name!r}. `fewshot-ad datasets` describes them."
        )
    return _REGISTRY[name]
