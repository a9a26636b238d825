"""The benchmark report: one HTML file that holds its data, style and script, and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, TypeAlias

from fewshot_ad.benchmark import averages
from fewshot_ad.benchmark.averages import Row, figure
from fewshot_ad.benchmark.departures import departures, in_short
from fewshot_ad.benchmark.extent import extent
from fewshot_ad.benchmark.published import Published, beside
from fewshot_ad.benchmark.record import COPY, Record
from fewshot_ad.benchmark.tables import job_name, shots_name
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.printable import printable
from fewshot_ad.storage import check_output, write_atomically, write_failure

Json: TypeAlias = "dict[str, Any]"
# Most bytes of all pictures together, before they are written as text, and of each one.
PICTURES_BYTES, PICTURE_BYTES = 24_000_000, 500_000
_KINDS = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}


def write_report(
    records: Sequence[Record],
    path: Path,
    title: str = "Benchmark",
    published: Sequence[Published] = (),
    overlays_folder: Path | Sequence[Path] | None = None,
    pictures: int = 2,
) -> None:
    """Write the report, atomically: what was at the path before stays until the new page is whole on disk.

    Args:
        records: What to show; of repeated jobs the last.
        path: Of the HTML file.
        title: Headline.
        published: Figures to show beside ours; those of other datasets are left out.
        overlays_folder: Of the record file, which `Record.overlays` are relative to, or of several record files;
            pictures outside are left out. None takes the folder of `path`.
        pictures: Pictures of single results embedded at most of each setting, shots, dataset, method and category.

    Raises:
        BenchmarkError: There are no records, or the file cannot be written, or is there and no such page.
    """
    check_page(path)
    folders = path.parent if overlays_folder is None else overlays_folder
    page = render(records, title, published, [folders] if isinstance(folders, Path) else folders, pictures)
    try:
        write_atomically(path, page.encode())
    except OSError as error:
        raise BenchmarkError(
            f"{write_failure(path, error, len(page))} Nothing that was there before is changed."
        ) from error


def check_page(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Make sure that a page replaces nothing but an older one.

    Args:
        path: Of the HTML file.
        inputs: Files that are read, none of which may be replaced.

    Raises:
        BenchmarkError: Something is there that must stay.
    """
    check_output(path, inputs=inputs, obstacle=_no_page, error=BenchmarkError)


def _no_page(path: Path) -> str | None:
    with path.open("rb") as file:
        # The policy that no other page has is among the first lines.
        if b"default-src 'none'; img-src data:; style-src" in file.read(1024):
            return None
    return "expected an older page to replace, or no file, got something else. Choose another name."


def render(
    records: Sequence[Record],
    title: str = "Benchmark",
    published: Sequence[Published] = (),
    folders: Sequence[Path] = (),
    pictures: int = 2,
) -> str:
    """The report's HTML; the same records give the same page. See `write_report`.

    Raises:
        BenchmarkError: There are no records.
    """
    if not records:
        raise BenchmarkError("expected at least one record, got none. Run the plan first, or check the record file.")
    data = _data(records, published, folders, pictures)
    style, script = _page_file("report_page.css"), _page_file("report_tables.js") + _page_file("report_page.js")
    # The page may run this script and use this style and nothing else, whatever is in the data.
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source_hash(style)}; script-src {_source_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_page_file("report_page.html")).substitute(
        policy=policy, title=html.escape(printable(title)), style=style, script=script, data=_script_json(data)
    )


def _page_file(name: str) -> str:
    return resources.files("fewshot_ad.benchmark").joinpath(name).read_text(encoding="utf-8")


def _source_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _script_json(data: Json) -> str:
    """JSON that cannot end the script element it stands in, nor start a comment in it."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(records: Sequence[Record], published: Sequence[Published], folders: Sequence[Path], pictures: int) -> Json:
    current = averages.latest(records)
    common = averages.common(current)
    finished = sum(record.status == "done" for record in current)
    rows = averages.aggregate(current)
    # Where every job failed, the page still needs a figure to have no values of.
    figures = averages.present(rows) or [figure("image_auroc")]
    shown, left = _pictures(current, folders, pictures)
    return {
        "how": averages.HOW,
        "notes": averages.NOTES,
        "decided": averages.DECISIONS,
        "howDecided": averages.HOW_DECISIONS,
        "incomplete": averages.INCOMPLETE,
        "figures": [{"name": f.name, "label": f.label, "unit": f.unit, "lower": f.lower} for f in figures],
        "rows": _rows(current),
        "shared": _rows(common) if len(common) < finished else None,
        "published": _published(published, current),
        "pictures": shown,
        "picturesLeft": f"{left} more are left out to keep this file small." if left else "",
        "counts": _counts(current),
        "extents": _extent(current),
        "failed": [[job_name(r), r.reason or "not given"] for r in averages.failures(current)],
        "summary": _summary(current, len(records) - len(current)),
        "runs": _runs(current),
        "methods": _methods(current),
    }


def _place(record: Record | Row) -> tuple[str, str, str, str]:
    return record.setting, str(record.shots), record.dataset, record.method


def _rows(records: Sequence[Record]) -> list[Json]:
    rows = []
    for group in _groups([*averages.aggregate(records), *averages.aggregate(records, by_category=True)]):
        top = {f.name: averages.best(group, f) for f in averages.present(group)}
        for row in group:
            setting, shots, dataset, method = _place(row)
            rows.append(
                {
                    "setting": setting,
                    "shots": shots,
                    "dataset": dataset,
                    "method": method,
                    "category": row.category or None,
                    "done": row.done,
                    "of": row.of,
                    "asPublished": in_short(row.departed),
                    "cells": {name: _cell(row, name, row.method in top[name]) for name in row.cells},
                }
            )
    return rows


def _groups(rows: Iterable[Row]) -> list[list[Row]]:
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.setting, row.shots, row.dataset, row.category), []).append(row)
    return list(groups.values())


def _cell(row: Row, name: str, best: bool) -> list[Any]:
    cell, shown = row.cells[name], figure(name)
    between = f"{shown.text(cell.interval[0])} to {shown.text(cell.interval[1])}" if cell.interval else ""
    mean = float(f"{cell.mean:.6g}")
    text = shown.text(cell.mean, cell.sd)
    return [mean, text, row.marks(name), int(best), cell.draws, cell.pairs, cell.of, between]


def _published(published: Sequence[Published], records: Sequence[Record]) -> list[Json]:
    return [
        {
            "method": entry.method,
            "dataset": dataset,
            "shots": str(entry.shots),
            "setting": entry.setting,
            "figures": {name: [value, figure(name).text(value)] for name, value in entry.figures.items()},
            "categories": {
                category: {name: [value, figure(name).text(value)] for name, value in figures.items()}
                for category, figures in entry.categories.items()
            },
            "labels": {name: figure(name).label for name in entry.figures},
            "source": entry.said_by,
            "note": entry.note,
        }
        for dataset, entry in beside(published, records)
    ]


def _pictures(records: Sequence[Record], folders: Sequence[Path], most: int) -> tuple[list[Json], int]:
    """Pictures as data URIs, the first ones of all methods before the second ones; and how many are left out.

    A record's last picture comes second: where there is one of a good image, it is that, see `Overlays.pictures`.
    """
    candidates: list[tuple[int, int, Record, str]] = []
    counts: Counter[tuple[tuple[str, str, str, str], str]] = Counter()
    for number, record in enumerate(records):
        first, last, between = record.overlays[:1], record.overlays[1:][-1:], record.overlays[1:-1]
        for name in (*first, *last, *between):
            key = (_place(record), record.category)
            candidates.append((counts[key], number, record, name))
            counts[key] += 1
    shown: list[tuple[int, int, Json]] = []
    size = left = 0
    for place, number, record, name in sorted(candidates, key=lambda c: c[:2]):
        if place >= most:
            left += 1
            continue
        source = next((uri for folder in folders if (uri := _data_uri(folder, name))), None)
        if source is None or size + len(source) > PICTURES_BYTES:
            left += 1
            continue
        size += len(source)
        setting, shots, dataset, method = _place(record)
        entry = {"setting": setting, "shots": shots, "dataset": dataset, "method": method}
        shown.append((number, place, {**entry, "category": record.category, "draw": record.draw, "source": source}))
    return [entry for _, _, entry in sorted(shown, key=lambda s: s[:2])], left


def _data_uri(folder: Path, name: str) -> str | None:
    """A picture file as a data URI; None of a file that is missing, too large, no picture, or outside the folder."""
    try:
        path = (folder / name).resolve()
        # A record file from elsewhere must not be able to embed any file of this machine.
        if not path.is_relative_to(folder.resolve()) or path.stat().st_size > PICTURE_BYTES:
            return None
        content = path.read_bytes()
    except (OSError, ValueError):
        return None
    kind = next((kind for magic, kind in _KINDS.items() if content.startswith(magic)), None)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}" if kind else None


def _counts(records: Sequence[Record]) -> list[Json]:
    counts: dict[tuple[object, ...], Json] = {}
    for r in records:
        good, defective = r.counts.get("test_good"), r.counts.get("test_defective")
        if r.status != "done" or good is None or defective is None:
            continue
        entry = {"setting": r.setting, "shots": str(r.shots), "dataset": r.dataset, "category": r.category}
        known = counts.setdefault(tuple(entry.values()), {**entry, "good": 0, "defective": 0, "copy": None})
        # Some methods are tested on a part only; the largest test is closest to the dataset.
        if good + defective > known["good"] + known["defective"]:
            known.update(good=good, defective=defective)
        # Old records say what was tested, not what the copy held.
        if all(name in r.counts for name in COPY):
            known["copy"] = [r.counts[name] for name in COPY]
    return sorted(counts.values(), key=lambda c: (c["dataset"], c["category"]))


def _extent(records: Sequence[Record]) -> list[Json]:
    places = dict.fromkeys((r.setting, r.shots, r.dataset) for r in records)
    return [
        {
            "setting": setting,
            "shots": str(shots),
            "dataset": dataset,
            "text": extent([r for r in records if (r.setting, r.shots, r.dataset) == (setting, shots, dataset)]),
        }
        for setting, shots, dataset in places
    ]


def _summary(records: Sequence[Record], repeated: int) -> list[list[str]]:
    done = sum(record.status == "done" for record in records)
    dates = sorted(record.date[:10] for record in records if record.date)
    tiles = [
        ["Jobs done", f"{done} of {len(records)}"],
        ["Failed", str(len(records) - done)],
        ["Methods", str(len({r.method for r in records}))],
        ["Datasets", str(len({r.dataset for r in records}))],
        ["Categories", str(len({(r.dataset, r.category) for r in records}))],
        ["Draws", str(len({r.draw for r in records}))],
    ]
    if dates:
        tiles.append(["Run", dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"])
    machines = len({_machine(r) for r in records if r.machine})
    if machines > 1:
        tiles.append(["Machines", f"{machines}: times do not compare"])
    if repeated:
        tiles.append(["Older records of the same jobs, left out", str(repeated)])
    return tiles


def _machine(record: Record) -> str:
    return ", ".join(f"{name}: {value}" for name, value in sorted(record.machine.items()))


def _runs(records: Sequence[Record]) -> list[list[str]]:
    machines = Counter(_machine(r) for r in records if r.machine)
    versions = Counter((name, version) for r in records for name, version in r.versions.items())
    notes = Counter(r.note for r in records if r.note)
    where = Counter(f"{r.setting}, {shots_name(r.shots)}, {r.dataset}" for r in records)
    return [
        *(["machine", name, str(count)] for name, count in sorted(machines.items())),
        *([name, version, str(count)] for (name, version), count in sorted(versions.items())),
        *(["jobs", name, str(count)] for name, count in where.items()),
        *(["note", text, str(count)] for text, count in notes.items()),
    ]


def _methods(records: Sequence[Record]) -> list[list[str]]:
    methods = {
        (r.method, r.baseline, json.dumps(r.options, sort_keys=True), "; ".join(departures(r) or ())) for r in records
    }
    return [
        [method, baseline, "" if options == "{}" else options, differs]
        for method, baseline, options, differs in sorted(methods)
    ]
