"""Averages of records as CSV, Markdown, LaTeX and JSON."""

from __future__ import annotations

import csv as csv_module
import dataclasses
import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fewshot_ad.benchmark.averages import (
    DECISIONS,
    HOW,
    HOW_DECISIONS,
    INCOMPLETE,
    NOTES,
    ON_RANDOM,
    OTHER_TEST,
    Figure,
    Row,
    aggregate,
    best,
    failures,
    figure,
    present,
)
from fewshot_ad.benchmark.departures import in_short
from fewshot_ad.benchmark.extent import extent
from fewshot_ad.benchmark.published import Published, beside
from fewshot_ad.benchmark.record import Record, Shots
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.printable import no_formula, printable

MAIN = ("image_auroc", "image_f1_max", "pixel_auroc", "au_pro", "fit_s", "ms", "model_mb")
CSV_COLUMNS = (
    *("setting", "shots", "dataset", "category", "method", "figure", "mean", "sd", "low", "high", "draws"),
    *("jobs", "jobs_of", "method_jobs_done", "method_jobs", "other_test", "differs_from_published"),
)
# How the tables below begin, as regular expressions.
CSV_START = ",".join(CSV_COLUMNS[:3])
MARKDOWN_START = r"### .*\n\n\| (Method \| Jobs|Job \| Reason) \|"
LATEX_START = r"% Needs \\usepackage\{booktabs\}"
NONE = "\N{EN DASH}"
AS_PUBLISHED = "As published"


def csv(records: Sequence[Record], by_category: bool = False) -> str:
    """All averages in long form, one line per figure; values as they are, figures in 0..1.

    A method that finished nothing has one line without a figure. `low` and `high` are the 95% interval of a figure that
    is of one job alone.

    Args:
        records: What to show.
        by_category: Whether lines of each category follow, which are named in the column that averages leave empty.
    """
    text = io.StringIO()
    writer = csv_module.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in [*_required(records), *(aggregate(records, by_category=True) if by_category else [])]:
        names = (row.setting, row.shots, row.dataset, row.category, row.method)
        head = [no_formula(printable(str(name))) for name in names]
        differs = "unknown" if row.departed is None else no_formula(printable("; ".join(row.departed)))
        tail = (row.done, row.of, int(row.other_test), differs)
        if not row.cells:
            writer.writerow((*head, *[""] * 8, *tail))
        for name in (f.name for f in present([row])):
            cell = row.cells[name]
            sd = "" if cell.sd is None else f"{cell.sd:.6g}"
            interval = [f"{end:.6g}" for end in cell.interval or ()] or ["", ""]
            writer.writerow((*head, name, f"{cell.mean:.6g}", sd, *interval, cell.draws, cell.pairs, cell.of, *tail))
    return text.getvalue()


def plain(records: Sequence[Record], by_category: bool = False) -> list[dict[str, Any]]:
    """What `csv` has, one entry per method of a setting, shots and dataset, as plain JSON types.

    Args:
        records: What to show.
        by_category: Whether entries of each category follow.
    """
    entries = []
    for row in [*_required(records), *(aggregate(records, by_category=True) if by_category else [])]:
        entry = dataclasses.asdict(row)
        entry["figures"] = {one.name: entry["cells"][one.name] for one in present([row])}
        entry["differs_from_published"] = entry.pop("departed")
        del entry["cells"]
        entries.append(entry)
    return entries


def markdown(records: Sequence[Record], figures: Sequence[str] = MAIN, published: Sequence[Published] = ()) -> str:
    """One table per setting, shots and dataset, methods by their first figure; then the failed jobs.

    Args:
        records: What to show.
        figures: Names of the columns; those that no method has are left out.
        published: Figures of others, below ours where they are of the same setting, shots and dataset.
    """
    known = beside(published, records)
    blocks, decided = [], False
    for title, rows, columns in _tables(records, figures):
        head = ["Method", "Jobs", *(f"{c.label} ({c.unit})" for c in columns), AS_PUBLISHED]
        lines = [f"### {_md(title)}", "", _md_line(head)]
        lines.append("|---|" + "---:|" * (len(columns) + 1) + "---|")
        top = {c.name: best(rows, c) for c in columns}
        for row in rows:
            cells = [f"**{t}**" if row.method in top[c.name] else t for c, t in _texts(row, columns)]
            lines.append(_md_line([_md(row.method), f"{row.done}/{row.of}", *cells, _md(in_short(row.departed))]))
        notes = [*(f"\n{sign} {note}" for sign, note in _notes(rows, columns)), *_extent(records, rows[0], "\n", _md)]
        place = (rows[0].dataset, rows[0].setting, rows[0].shots)
        for entry in (entry for name, entry in known if (name, entry.setting, entry.shots) == place):
            texts = [c.text(entry.figures[c.name]) if c.name in entry.figures else NONE for c in columns]
            if set(texts) - {NONE}:
                method = f"{_md(entry.method)} (published: {_md(entry.said_by)})"
                lines.append(_md_line([method, NONE, *texts, "published figures"]))
                notes += [f"\n{_md(entry.method)}: {_md(entry.note)}"] if entry.note else []
        blocks.append("\n".join([*lines, *notes]))
        decided = decided or any(c.name in DECISIONS for c in columns)
    blocks.append(f"{HOW} {HOW_DECISIONS}" if decided else HOW)
    # One method may have run in several ways, at other shots for example.
    departed = dict.fromkeys((row.method, row.departed) for row in aggregate(records) if row.departed)
    if departed:
        lines = ["### What differs from the published methods", "", "| Method | Differs in |", "|---|---|"]
        blocks.append("\n".join([*lines, *(_md_line([_md(m), _md("; ".join(d))]) for m, d in sorted(departed))]))
    missing = failures(records)
    if missing:
        lines = [f"### Failed jobs ({len(missing)})", "", "| Job | Reason |", "|---|---|"]
        lines += [_md_line([_md(job_name(r)), _md(r.reason or "not given")]) for r in missing]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def latex(records: Sequence[Record], figures: Sequence[str] = MAIN) -> str:
    r"""Tables as `markdown` makes them, for the package booktabs; failed jobs stand in comments at the end.

    Args:
        records: What to show.
        figures: Names of the columns; those that no method has are left out.
    """
    blocks = ["% Needs \\usepackage{booktabs}.\n% " + HOW]
    for title, rows, columns in _tables(records, figures):
        signs = [f"{sign}: {note}" for sign, note in _notes(rows, columns)]
        notes = " ".join([*_extent(records, rows[0]), *signs])
        head = ["Method", "Jobs", *(f"{c.label} ({c.unit})" for c in columns), AS_PUBLISHED]
        lines = [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{_tex(f'{title}. {notes}'.strip())}}}",
            f"  \\begin{{tabular}}{{l{'r' * (len(columns) + 1)}l}}",
            r"    \toprule",
            "    " + " & ".join(_tex(name) for name in head) + r" \\",
            r"    \midrule",
        ]
        top = {c.name: best(rows, c) for c in columns}
        for row in rows:
            cells = [
                f"\\textbf{{{_tex(t)}}}" if row.method in top[c.name] else _tex(t) for c, t in _texts(row, columns)
            ]
            cells = [_tex(row.method), f"{row.done}/{row.of}", *cells, _tex(in_short(row.departed))]
            lines.append("    " + " & ".join(cells) + r" \\")
        blocks.append("\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]))
    departed = dict.fromkeys((row.method, row.departed) for row in aggregate(records) if row.departed)
    if departed:
        lines = [f"{_tex(method)}: {_tex('; '.join(differs))}." for method, differs in sorted(departed)]
        blocks.append("% Below the tables.\n\\noindent What differs from the published methods.\n" + "\n".join(lines))
    comments = [f"% failed: {printable(' '.join(f'{job_name(r)}: {r.reason}'.split()))}" for r in failures(records)]
    return "\n\n".join([*blocks, *(["\n".join(comments)] if comments else [])]) + "\n"


def shots_name(shots: Shots) -> str:
    """Shots in words."""
    return "all good images" if shots == "full" else f"K = {shots}"


def job_name(record: Record) -> str:
    """A job in words."""
    return (
        f"{record.method}, {record.dataset}/{record.category}, {record.setting}, {shots_name(record.shots)}, "
        f"draw {record.draw}"
    )


def _required(records: Iterable[Record]) -> list[Row]:
    rows = aggregate(records)
    if not rows:
        raise BenchmarkError("expected at least one record, got none. Run the plan first, or check the record file.")
    return rows


def _tables(records: Iterable[Record], names: Sequence[str]) -> list[tuple[str, list[Row], list[Figure]]]:
    groups: dict[tuple[str, Shots, str], list[Row]] = {}
    for row in _required(records):
        groups.setdefault((row.setting, row.shots, row.dataset), []).append(row)
    tables = []
    for (setting, shots, dataset), rows in groups.items():
        columns = [figure(name) for name in names if any(name in row.cells for row in rows)]
        if columns:
            first = columns[0]
            rows = sorted(rows, key=lambda row: _rank(row, first))
        tables.append((f"{dataset}, {setting}, {shots_name(shots)}", rows, columns))
    return tables


def _rank(row: Row, first: Figure) -> tuple[bool, bool, float]:
    if first.name not in row.cells:
        return True, True, 0.0
    mean = row.cells[first.name].mean
    return False, bool(row.marks(first.name)), mean if first.lower else -mean


def _texts(row: Row, columns: Sequence[Figure]) -> list[tuple[Figure, str]]:
    texts = []
    for column in columns:
        cell = row.cells.get(column.name)
        shown = f"{column.text(cell.mean, cell.sd)}{row.marks(column.name)}" if cell else NONE
        texts.append((column, shown))
    return texts


def _extent(
    records: Iterable[Record], row: Row, before: str = "", escaped: Callable[[str], str] = str
) -> tuple[str, ...]:
    """What the methods of a table were tested on, where it is on record."""
    place = (row.setting, row.shots, row.dataset)
    said = extent([r for r in records if (r.setting, r.shots, r.dataset) == place])
    return (before + escaped(said),) if said else ()


def _notes(rows: Sequence[Row], columns: Sequence[Figure]) -> list[tuple[str, str]]:
    marks = {mark for row in rows for c in columns if c.name in row.cells for mark in row.marks(c.name)}
    return [(sign, note) for sign, note in NOTES.items() if sign in marks]


def _md(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#~|&!$])", r"\\\1", printable(" ".join(text.split())))


def _md_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    NONE: "--",
    INCOMPLETE: r"\textsuperscript{\dag}",
    OTHER_TEST: r"\textsuperscript{\ddag}",
    ON_RANDOM: r"\textsuperscript{\S}",
    **{sign: f"\\{sign}" for sign in "{}$&#_%"},
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in printable(" ".join(text.split())))
