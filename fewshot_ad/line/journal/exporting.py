"""A journal for others to read: CSV for spreadsheets, Parquet for programs, one page of HTML for people."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from fewshot_ad.arrays import Progress
from fewshot_ad.inspection.verdict import Verdict, format_severity, verdict_words
from fewshot_ad.line.charts import Entry, histogram, run, text_of
from fewshot_ad.line.document import document, tile
from fewshot_ad.line.extra import needs_extra
from fewshot_ad.line.journal.database import JournalError
from fewshot_ad.line.journal.entries import Correction, Selection
from fewshot_ad.line.journal.reading import JournalReader
from fewshot_ad.line.record import RECORD_VERDICTS, Record
from fewshot_ad.printable import no_formula, printable
from fewshot_ad.storage import replacing, write_failure

ExportFormat: TypeAlias = Literal["csv", "parquet", "html"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
COLUMNS = (
    "time",
    "station",
    "product",
    "verdict",
    "severity",
    "score",
    "threshold",
    "reason",
    "source",
    "name",
    "milliseconds",
    "correction",
    "regions",
    "id",
    "artifact",
    "image",
    "overlay",
)
# Rows that are written at a time; rows of a page at most, and images that its charts are drawn of.
ROWS, PAGE_ROWS, PAGE_IMAGES = 1000, 2000, 20_000


def export_journal(
    journal: JournalReader, selection: Selection, path: Path, form: ExportFormat, progress: Progress | None = None
) -> int:
    """Write records to a file, whole or not at all, the oldest first.

    Args:
        journal: Where they stand.
        selection: Which.
        path: The file; an older one is replaced.
        form: Of the file.
        progress: Called as `progress("export", done, total)`.

    Returns:
        How many records.

    Raises:
        JournalError: It cannot be read, or the file not be written.
        StationError: Parquet needs the extra `parquet`, which is not installed.
    """
    if not path.absolute().parent.is_dir():
        raise JournalError(f"expected a folder at {path.absolute().parent} to write to, got none. Check the path.")
    total = sum(journal.counts(selection).values())
    counted = _Counted(rows(journal, selection), total, progress)
    try:
        with replacing(path) as file:
            if form == "csv":
                file.writelines(line.encode() for line in csv_lines(counted))
            elif form == "parquet":
                _write_parquet(file, counted)
            else:
                file.write(html_page(journal, selection).encode())
    except OSError as error:
        raise JournalError(write_failure(path, error)) from error
    return total if form == "html" else counted.done


def rows(journal: JournalReader, selection: Selection) -> Iterator[dict[str, Any]]:
    """Records as cells by the names of `COLUMNS`, the oldest first; times in UTC."""
    records = journal.each(selection)
    while page := list(itertools.islice(records, ROWS)):
        said = journal.corrections_of([record.id for record in page])
        for record in page:
            correction = said.get(record.id)
            cells = record.model_dump(include=set(COLUMNS))
            cells["regions"] = _regions(record)
            cells["correction"] = correction.action if correction is not None else None
            yield {name: cells[name] for name in COLUMNS}


def csv_lines(cells: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of a CSV file, with its head.

    A cell that a spreadsheet would run as a formula begins with an apostrophe: names are those of senders.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in cells:
        writer.writerow([_cell(row[name]) for name in COLUMNS])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    if buffer.tell():
        yield buffer.getvalue()


def html_page(journal: JournalReader, selection: Selection) -> str:
    """One page: counts, how scores lie, how they came, and a table; it loads nothing.

    Of more than 20,000 records the charts show the latest.
    """
    counts = journal.counts(selection)
    total = sum(counts.values())
    latest = [record for _, record in journal.select(selection, PAGE_IMAGES)][::-1]
    body = ['<section><h2>Summary</h2><ul class="tiles">']
    for verdict in RECORD_VERDICTS:
        if verdict in ("good", "anomalous") or counts[verdict]:
            body.append(tile(verdict, _words(verdict), counts[verdict], total))
    body.append("</ul>")
    if total > len(latest):
        body.append(f"<p>The charts and the table are of the latest {len(latest)} of {total}.</p>")
    body.append("</section>")
    for product, count in Counter(record.product for record in latest if record.product).most_common():
        entries = [_entry(number, one) for number, one in enumerate((r for r in latest if r.product == product), 1)]
        body.append(f"<section><h2>{text_of(product)}: {count} images</h2></section>")
        known = [entry for entry in entries if entry is not None]
        body += [*histogram(known), *run(known)]
    body += _table(journal, latest)
    return document(f"Journal of {journal.station}: {total} inspections", _span(latest), body)


def _table(journal: JournalReader, latest: list[Record]) -> Iterator[str]:
    shown, said = latest, f"All {len(latest)} inspections, in the order in which they came."
    if len(latest) > PAGE_ROWS:
        shown = [record for record in latest if record.verdict != "good"][-PAGE_ROWS:]
        said = f"The latest {len(shown)} inspections that were not good, of {len(latest)}."
    corrected: dict[str, Correction] = {}
    for start in range(0, len(shown), ROWS):
        corrected |= journal.corrections_of([record.id for record in shown[start : start + ROWS]])
    yield f"<section><h2>Every image</h2><table><caption>{said}</caption><thead><tr>"
    yield "".join(
        f'<th scope="col">{head}</th>'
        for head in ("Time", "Product", "Image", "Verdict", "Severity", "What is said", "Corrected")
    )
    yield "</tr></thead><tbody>"
    for record in shown:
        correction = corrected.get(record.id)
        severity = "" if record.severity is None else format_severity(record.severity, record.verdict == "anomalous")
        time = record.time.astimezone().isoformat(sep=" ", timespec="seconds")
        yield (
            f"<tr><td>{time}</td><td>{text_of(record.product)}</td><td>{text_of(record.name)}</td>"
            f'<td class="{record.verdict}">{_words(record.verdict)}</td><td class="number">{severity}</td>'
            f"<td>{text_of(record.reason or _regions(record))}</td>"
            f"<td>{correction.action if correction is not None else ''}</td></tr>"
        )
    yield "</tbody></table></section>"


def _entry(number: int, record: Record) -> Entry | None:
    if record.verdict == "unreadable" or record.severity is None:
        return None
    finding = record.reason or _regions(record)
    verdict: Verdict = record.verdict
    return Entry(number, record.name, verdict, record.severity, verdict == "anomalous", finding, record.milliseconds)


def _words(verdict: str) -> str:
    return "not readable" if verdict == "unreadable" else verdict_words(verdict).lower()  # type: ignore[arg-type]


def _span(records: list[Record]) -> str:
    if not records:
        return "nothing was inspected"
    first, last = (one.time.astimezone().isoformat(sep=" ", timespec="minutes") for one in (records[0], records[-1]))
    return f"{first} to {last}"


def _regions(record: Record) -> str:
    """Where, as text: `x,y,width,height` of each region, worst first."""
    found = (record.inspection or {}).get("regions", [])
    return " ".join(",".join(str(number) for number in region["box"]) for region in found)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if hasattr(value, "isoformat"):
        return value.isoformat(timespec="milliseconds")
    return no_formula(printable(value)) if isinstance(value, str) else value


class _Counted:
    """Rows, and how many there were."""

    def __init__(self, cells: Iterator[dict[str, Any]], total: int, progress: Progress | None) -> None:
        self._cells, self._total, self._progress = cells, total, progress
        self.done = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self._cells:
            self.done += 1
            if self._progress is not None and self.done % ROWS == 0:
                self._progress("export", self.done, max(self.done, self._total))
            yield row


def _write_parquet(file: Any, cells: Iterable[dict[str, Any]]) -> None:
    with needs_extra("parquet"):
        import pyarrow
        import pyarrow.parquet
    kinds = {
        "time": pyarrow.timestamp("ms", tz="UTC"),
        **dict.fromkeys(("severity", "score", "threshold", "milliseconds"), pyarrow.float64()),
    }
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    iterator = iter(cells)
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while page := list(itertools.islice(iterator, 10 * ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(page, schema))
