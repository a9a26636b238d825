"""Figures that papers published, with their sources, to read beside measured ones."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import yaml

from fewshot_ad.benchmark.extent import missing_images
from fewshot_ad.benchmark.record import Record, Shots
from fewshot_ad.datasets import dataset_cards
from fewshot_ad.errors import BenchmarkError

# `pro` is a mean overlap of predicted and true regions without a stated limit, which is not AU-PRO; `image_f1` is at a
# threshold that is not stated. Neither has a column to stand in.
FIGURES = ("image_auroc", "pixel_auroc", "pixel_aupr", "au_pro", "pro", "image_f1")
OPTIONAL = ("setting", "over", "categories")


@dataclass(frozen=True)
class Published:
    """The figures of one method in one source.

    Attributes:
        method: As the source spells it; what tells variants apart in brackets.
        dataset: Name as the readers of `fewshot_ad.datasets` have it.
        shots: Good images per category that it was fitted on, or `full`; 0 for a method that needs none.
        setting: As `benchmark.record.Record.setting`; `zero-shot` where the shots are 0. A dataset in it is named as by
            `dataset`.
        figures: Means over the categories by name, see `benchmark.record.Record.figures`, and `FIGURES`; in 0..1.
        source: Paper or page, with the table.
        note: What to know before comparing; may be empty.
        verified: Whether the figures were checked in that source, rather than recalled.
        over: Categories that the means are over; empty for all of the dataset.
        categories: Figures of single categories, by name.
    """

    method: str
    dataset: str
    shots: Shots
    setting: str
    figures: Mapping[str, float]
    source: str
    note: str
    verified: bool
    over: tuple[str, ...] = ()
    categories: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def said_by(self) -> str:
        """The source, with a remark where the figures were not checked in it."""
        return self.source if self.verified else f"{self.source} (recalled, not checked there)"


def published(dataset: str | None = None, method: str | None = None) -> tuple[Published, ...]:
    """The published figures that this package ships.

    Args:
        dataset: Only those on it; `VisA` and `visa` are the same.
        method: Only those of it, compared in the same way.

    Returns:
        By dataset and method in the order of the file; none where nothing is known.

    Raises:
        BenchmarkError: The shipped file is damaged.
    """
    return tuple(
        entry
        for entry in _shipped()
        if (dataset is None or _plain(entry.dataset) == _plain(dataset))
        and (method is None or _plain(entry.method) == _plain(method))
    )


def beside(entries: Sequence[Published], records: Sequence[Record]) -> list[tuple[str, Published]]:
    """The published figures that compare with those on record, each with the name that the records give the dataset.

    The setting is spelt as on record, too.

    A plan may call a dataset anything: it is known by the name of its reader, and by the plan's own name for it. Either
    way it is of the same setting and shots, some method has done all published categories and none was run on others,
    since a mean over fifteen products says nothing beside one of them, every test image was inspected, and no copy had
    fewer images than the dataset. Of a dataset without a reader the categories are not known.
    """
    layouts: dict[str, set[str]] = {}
    tables: dict[tuple[str, str, Shots], list[Record]] = {}
    for record in records:
        layouts.setdefault(record.dataset, set()).add(record.layout)
        tables.setdefault((record.dataset, record.setting, record.shots), []).append(record)
    whole = {_plain(name): set(card.categories) for name, card in dataset_cards().items()}

    def compares(entry: Published, name: str, setting: str, shots: Shots) -> bool:
        if (_plain(setting), shots) != (_plain(entry.setting), entry.shots):
            return False
        table, dataset = tables[name, setting, shots], _plain(entry.dataset)
        if dataset not in {_plain(one) for one in (name, *layouts[name])}:
            return False
        if any(record.protocol.get("test_limit") is not None for record in table):
            return False
        # What another dataset lacks that only lies in the same way, says nothing of this one.
        if any(_plain(record.layout) == dataset and missing_images(record) for record in table):
            return False
        categories = {record.category for record in table}
        done: dict[str, set[str]] = {}
        for record in table:
            if record.status == "done":
                done.setdefault(record.method, set()).add(record.category)
        return categories in done.values() and categories == (set(entry.over) or whole.get(dataset, categories))

    return [
        (place[0], replace(entry, setting=place[1])) for entry in entries for place in tables if compares(entry, *place)
    ]


def _plain(name: str) -> str:
    # The plus stays: WinCLIP and WinCLIP+ are two methods.
    return re.sub(r"[^a-z0-9+]", "", name.lower())


@functools.cache
def _shipped() -> tuple[Published, ...]:
    return parse(files("fewshot_ad.benchmark").joinpath("published.yaml").read_text("utf-8"))


def parse(text: str) -> tuple[Published, ...]:
    """Read and check published figures.

    Args:
        text: YAML with a list of `entries`, each with the attributes of `Published`; where `setting` is left out, the
            shots say it.

    Raises:
        BenchmarkError: It is something else, or an entry is incomplete, impossible or a repetition.
    """
    try:
        # The C loader where there is one: the shipped file is long.
        document = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except yaml.YAMLError as error:
        raise BenchmarkError(f"expected YAML with published figures: {error}") from error
    entries = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise BenchmarkError("expected published figures as a list under `entries`, got none.")
    parsed = tuple(_entry(number, entry) for number, entry in enumerate(entries, 1))
    names = [(entry.method, entry.dataset, entry.setting, entry.shots) for entry in parsed]
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise BenchmarkError(
            f"expected each method, dataset, setting and shots once, got twice: {twice}. Name the variant."
        )
    return parsed


def _entry(number: int, entry: Any) -> Published:
    expected = set(Published.__dataclass_fields__) - set(OPTIONAL)
    if not isinstance(entry, dict) or set(entry) - set(OPTIONAL) != expected:
        got = sorted(entry) if isinstance(entry, dict) else entry
        raise BenchmarkError(f"entry {number}: expected {sorted(expected)}, got {got}.")
    shots, figures = entry["shots"], entry["figures"]
    if shots != "full" and (type(shots) is not int or shots < 0):
        raise BenchmarkError(f"entry {number}: expected shots as a whole number from 0 or `full`, got {shots!r}.")
    entry = {"setting": {"full": "full-shot", 0: "zero-shot"}.get(shots, "few-shot"), **entry}
    for key in ("method", "dataset", "setting", "source"):
        if not isinstance(entry[key], str) or not entry[key]:
            raise BenchmarkError(f"entry {number}: expected a text as {key}, got {entry[key]!r}.")
    categories, over = entry.get("categories", {}), entry.get("over", [])
    if not isinstance(categories, dict) or not all(isinstance(name, str) for name in (*categories, *over)):
        raise BenchmarkError(f"entry {number}: expected categories by their names as texts, got others.")
    for some in (figures, *categories.values()):
        _check_figures(number, some)
    if type(entry["verified"]) is not bool or not isinstance(entry["note"], str):
        raise BenchmarkError(f"entry {number}: expected `verified` as true or false and `note` as a text.")
    single = {name: MappingProxyType(dict(some)) for name, some in categories.items()}
    frozen = {"figures": MappingProxyType(dict(figures)), "over": tuple(over), "categories": MappingProxyType(single)}
    return Published(**{**entry, **frozen})


def _check_figures(number: int, figures: Any) -> None:
    if not isinstance(figures, dict) or not figures or not set(figures) <= set(FIGURES):
        raise BenchmarkError(f"entry {number}: expected figures among {FIGURES}, got {figures!r}.")
    for name, value in figures.items():
        if not isinstance(value, float) or not 0 <= value <= 1:
            raise BenchmarkError(f"entry {number}: expected {name} in 0..1, got {value!r}. Divide per cent by 100.")
