"""Records -> averages: which jobs they are over, and whether they compare."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Literal, TypeAlias

from fewshot_ad.benchmark.departures import departures, means_nothing
from fewshot_ad.benchmark.plan import SETTINGS
from fewshot_ad.benchmark.record import Record, Shots

Pair: TypeAlias = tuple[str, int]
Unit: TypeAlias = Literal["%", "s", "ms", "MB"]

INCOMPLETE, OTHER_TEST, ON_RANDOM = "†", "‡", "§"
HOW = (
    "Figures are averaged over the categories of each support draw first; shown are the mean and the sample standard "
    "deviation of these averages over the draws, and no deviation where there is one draw alone. Jobs: finished of "
    "planned; one job is one category and draw."
)
NOTES = {
    INCOMPLETE: "averaged over fewer jobs than the methods beside it, which does not compare; never marked as best.",
    OTHER_TEST: "tested on another number of images than most methods, which does not compare; never marked as best.",
    ON_RANDOM: "on random weights where pretrained ones belong: the figure means nothing; never marked as best.",
}


# Figures of decisions, and which methods have them.
DECISIONS = ("precision", "recall", "f1", "balanced_accuracy", "mcc", "false_reject_rate", "escape_rate")
HOW_DECISIONS = (
    "Precision, recall, F1, balanced accuracy, MCC, false rejects and escapes exist only for methods that decide at a "
    "threshold of their own: fewshot_ad, and the language model of VLM-AD. F1-max and MCC-max are those of the best "
    "threshold for the test images, which nobody knows beforehand."
)


@dataclass(frozen=True)
class Figure:
    """How a figure is named and shown.

    Attributes:
        name: In `Record.figures`, or the field of `Record`.
        label: Head of the column in tables.
        unit: `%` of figures in 0..1.
        lower: Whether less is better.
    """

    name: str
    label: str
    unit: Unit = "%"
    lower: bool = False

    def text(self, mean: float, sd: float | None = None) -> str:
        """A value as the tables show it: figures in percent with one decimal, others with about three digits."""
        scale, decimals = (100, 1) if self.unit == "%" else (1, 0 if mean >= 99.95 else 1 if mean >= 9.995 else 2)
        shown = f"{scale * mean:.{decimals}f}"
        return shown if sd is None else f"{shown} ± {scale * sd:.{decimals}f}"


FIGURES = (
    Figure("image_auroc", "Image AUROC"),
    Figure("image_aupr", "Image AUPR"),
    Figure("image_f1_max", "Image F1-max"),
    Figure("image_mcc_max", "Image MCC-max"),
    Figure("pixel_auroc", "Pixel AUROC"),
    Figure("pixel_aupr", "Pixel AUPR"),
    Figure("pixel_f1_max", "Pixel F1-max"),
    Figure("pixel_iou_max", "Pixel IoU-max"),
    Figure("au_pro", "AU-PRO"),
    Figure("au_pro_05", "AU-PRO to 5%"),
    Figure("au_spro", "AU-sPRO"),
    Figure("au_spro_05", "AU-sPRO to 5%"),
    Figure("precision", "Precision"),
    Figure("recall", "Recall"),
    Figure("f1", "F1"),
    Figure("balanced_accuracy", "Balanced accuracy"),
    Figure("mcc", "MCC"),
    Figure("false_reject_rate", "False rejects", lower=True),
    Figure("escape_rate", "Escapes", lower=True),
    Figure("forgetting", "Forgetting", lower=True),
)
COSTS = (
    Figure("fit_s", "Time to fit", "s", lower=True),
    Figure("ms", "Latency", "ms", lower=True),
    Figure("ms_p95", "Latency, 95th percentile", "ms", lower=True),
    Figure("ms_mae", "Latency, mean absolute error", "ms", lower=True),
    Figure("model_mb", "Model size", "MB", lower=True),
    Figure("memory_mb", "Peak memory", "MB", lower=True),
)
_KNOWN = {figure.name: figure for figure in (*FIGURES, *COSTS)}


@dataclass(frozen=True)
class Cell:
    """One figure of one method.

    Attributes:
        mean: Over draws of the means over categories.
        sd: Sample standard deviation over draws; None for a single draw.
        draws: Draws that took part.
        pairs: (category, draw) pairs that took part.
        of: Pairs that should have, see `aggregate`.
        interval: 95% interval (low, high) where the cell is of a single pair; an average has none.
    """

    mean: float
    sd: float | None
    draws: int
    pairs: int
    of: int
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """What one method reached on one dataset.

    Attributes:
        setting: See `Record`.
        shots: See `Record`.
        dataset: See `Record`.
        category: Product; empty for an average over categories.
        method: See `Record`.
        cells: By name of the figure; those that no record of the method has are left out.
        done: (category, draw) pairs the method finished.
        of: Pairs that any method of the same setting, shots and dataset was asked for.
        other_test: Whether it was tested on another number of images than most methods.
        departed: In what it departs from the published method; empty where it ran as published, None where that is
            not known.
    """

    setting: str
    shots: Shots
    dataset: str
    category: str
    method: str
    cells: dict[str, Cell] = field(default_factory=dict)
    done: int = 0
    of: int = 0
    other_test: bool = False
    departed: tuple[str, ...] | None = None

    def marks(self, name: str) -> str:
        """The signs of `NOTES` that the cell of a figure carries."""
        cell = self.cells[name]
        short, random = cell.pairs < cell.of, means_nothing(self.departed)
        return "".join(
            sign
            for sign, applies in ((INCOMPLETE, short), (OTHER_TEST, self.other_test), (ON_RANDOM, random))
            if applies
        )


def figure(name: str) -> Figure:
    """How a figure is shown; one that is not known counts as a share of which more is better."""
    return _KNOWN.get(name) or Figure(name, name.replace("_", " "))


def present(rows: Iterable[Row]) -> list[Figure]:
    """The figures that any row has, in the order of the tables."""
    names = {name for row in rows for name in row.cells}
    known = [f for f in (*FIGURES, *COSTS) if f.name in names]
    return known + [figure(name) for name in sorted(names - set(_KNOWN))]


def aggregate(records: Iterable[Record], by_category: bool = False) -> list[Row]:
    """Average the records of each (setting, shots, dataset, method) as `HOW` says.

    A method's average is over its own finished (category, draw) pairs. A pair counts as missing where another method
    has the figure, where the method failed, or where every method failed; so a figure that no method has on a
    category (no masks) is not missed there. Use `common` first to compare on common pairs alone.

    Args:
        records: Of any number of runs; see `latest`.
        by_category: One row per category instead of an average over them.

    Returns:
        Rows by setting, shots, dataset, category and method; methods that finished nothing have a row without cells.
    """
    groups: dict[tuple[str, Shots, str, str], list[Record]] = {}
    for record in latest(records):
        key = (record.setting, record.shots, record.dataset, record.category if by_category else "")
        groups.setdefault(key, []).append(record)
    return [row for key in sorted(groups, key=_order) for row in _rows(key, groups[key])]


def latest(records: Iterable[Record]) -> list[Record]:
    """The last record of each method, dataset, category, setting, shots and draw: runs that were repeated count once.

    Records of another seed or protocol count as repetitions, too: they are no further draw.
    """
    last: dict[tuple[object, ...], Record] = {}
    for record in records:
        last[(record.setting, record.shots, record.dataset, record.method, _pair(record))] = record
    return list(last.values())


def common(records: Iterable[Record]) -> list[Record]:
    """The records of those (category, draw) pairs that every method of the same setting, shots and dataset finished.

    Methods that finished nothing there are left out, and keep no other method's pairs from counting.
    """
    groups: dict[tuple[str, Shots, str], dict[str, dict[Pair, Record]]] = {}
    for record in latest(records):
        if record.status == "done":
            group = groups.setdefault((record.setting, record.shots, record.dataset), {})
            group.setdefault(record.method, {})[_pair(record)] = record
    return [
        record
        for methods in groups.values()
        for finished in methods.values()
        for pair, record in finished.items()
        if all(pair in other for other in methods.values())
    ]


def failures(records: Iterable[Record]) -> list[Record]:
    """The jobs that failed and have not been done since."""
    return [record for record in latest(records) if record.status == "failed"]


def best(rows: Sequence[Row], shown: Figure) -> set[str]:
    """The methods whose average is the best as it is shown; ties share it, and unmarked cells alone compete."""
    values = {
        row.method: float(shown.text(row.cells[shown.name].mean))
        for row in rows
        if shown.name in row.cells and not row.marks(shown.name)
    }
    if len(values) < 2:
        return set()
    top = min(values.values()) if shown.lower else max(values.values())
    return {method for method, value in values.items() if value == top}


def _pair(record: Record) -> Pair:
    return record.category, record.draw


def _order(key: tuple[str, Shots, str, str]) -> tuple[int, str, float, str, str]:
    setting, shots, dataset, category = key
    # Settings by what they are, then by how they are set: "noisy 10%" beside "noisy 20%".
    place = next((i for i, name in enumerate(SETTINGS) if setting.startswith(name)), len(SETTINGS))
    return place, setting, math.inf if shots == "full" else shots, dataset, category


def _values(record: Record) -> dict[str, float]:
    # A failed job may have got as far as some figures; they are not its result.
    if record.status != "done":
        return {}
    costs = {cost.name: getattr(record, cost.name) for cost in COSTS}
    return {k: v for k, v in {**record.figures, **costs}.items() if v is not None and math.isfinite(v)}


def _rows(key: tuple[str, Shots, str, str], group: list[Record]) -> list[Row]:
    all_pairs = {_pair(r) for r in group}
    without_result = all_pairs - {_pair(r) for r in group if r.status == "done"}
    expected: dict[str, set[Pair]] = {}
    test_sizes: dict[Pair, Counter[tuple[int, int]]] = {}
    for record in group:
        for name in _values(record):
            expected.setdefault(name, set(without_result)).add(_pair(record))
        if size := _test_size(record):
            test_sizes.setdefault(_pair(record), Counter())[size] += 1
    rows = []
    for method in sorted({r.method for r in group}):
        own = [r for r in group if r.method == method]
        failed = {_pair(r) for r in own if r.status == "failed"}
        values: dict[str, dict[Pair, float]] = {}
        for record in own:
            for name, value in _values(record).items():
                values.setdefault(name, {})[_pair(record)] = value
        intervals = own[0].intervals if len(own) == 1 else {}
        cells = {name: _cell(values[name], len(expected[name] | failed), intervals.get(name)) for name in values}
        other = any(
            test_sizes[_pair(r)][size] < max(test_sizes[_pair(r)].values())
            for r in own
            if (size := _test_size(r)) is not None
        )
        rows.append(Row(*key, method, cells, len(own) - len(failed), len(all_pairs), other, departures(own[0])))
    return rows


def _test_size(record: Record) -> tuple[int, int] | None:
    counts = record.counts
    if record.status != "done" or "test_good" not in counts or "test_defective" not in counts:
        return None
    return counts["test_good"], counts["test_defective"]


def _cell(values: dict[Pair, float], of: int, interval: tuple[float, float] | None) -> Cell:
    draws: dict[int, list[float]] = {}
    for (_, draw), value in values.items():
        draws.setdefault(draw, []).append(value)
    means = [fmean(of_draw) for of_draw in draws.values()]
    return Cell(fmean(means), stdev(means) if len(means) > 1 else None, len(means), len(values), of, interval)
