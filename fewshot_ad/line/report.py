"""A page of what was inspected: how many were good, how the scores lie, and what was rejected, as pictures."""

from __future__ import annotations

import base64
import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from fewshot_ad import arguments
from fewshot_ad.errors import ArgumentError, FewshotADError
from fewshot_ad.host.lifetime import native_work
from fewshot_ad.inspection.drift import Drift
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.inspection.verdict import Verdict, format_severity, verdict_words
from fewshot_ad.inspector import Inspector
from fewshot_ad.line.charts import VERDICTS, Entry, histogram, run, text_of
from fewshot_ad.line.document import MARK, document, tile
from fewshot_ad.line.judge import Judge
from fewshot_ad.metrics import Rate
from fewshot_ad.storage import check_output, write_atomically, write_failure

# Pictures of each kind at most, unless told; and how many may be asked for.
PICTURES, MAX_PICTURES = 60, 1000
# Good images that are shown, those that came closest to the threshold; and images that could not be judged.
CLOSE_CALLS = UNJUDGED = 8
# The longest side of a picture in pixels, and its quality as JPEG.
PICTURE_SIDE, QUALITY = 640, 82
# Rows of the table at most; beyond, good images are left out of it.
MAX_ROWS = 2000


class Report:
    """A page of what was inspected, in one file that loads nothing.

    Inspections are added one by one; of each only its figures stay, and the pictures of the worst.

    Args:
        inspector: The product, or a fitted baseline.
        pictures: How many anomalous images are shown at most, the worst first, and as many to be looked at; 0..1000.

    Raises:
        ArgumentError: The number is out of range.

    Examples:
        >>> report = Report(inspector)                                  # doctest: +SKIP
        >>> for path in paths:                                          # doctest: +SKIP
        ...     report.add(inspector.inspect(path), path)
        >>> report.write("today.html")                                  # doctest: +SKIP
    """

    def __init__(self, inspector: Inspector | Judge, *, pictures: int = PICTURES) -> None:
        if not isinstance(inspector, (Inspector, Judge)):
            raise ArgumentError(
                f"expected an Inspector, got {type(inspector).__name__}. Load it: Inspector.load(path)."
            )
        self._inspector = inspector
        self._pictures = arguments.whole_number(pictures, "pictures", 0, MAX_PICTURES)
        self._entries: list[Entry] = []
        self._failures: list[tuple[str, str]] = []
        # The worst with each verdict, as heaps: rank, minus number, entry, JPEG.
        self._shown: dict[Verdict, list[tuple[float, int, Entry, bytes]]] = {verdict: [] for verdict in VERDICTS}
        self._most: dict[Verdict, int] = {
            "good": CLOSE_CALLS,
            "review": self._pictures,
            "anomalous": self._pictures,
            "not_inspectable": min(UNJUDGED, self._pictures),
        }

    def add(self, inspection: Inspection, file: str = "") -> None:
        """Take an inspection along.

        Args:
            inspection: Of this product.
            file: What the image is called; empty takes the name in it.

        Raises:
            ArgumentError: It is none, or of another product.
        """
        if not isinstance(inspection, Inspection):
            raise ArgumentError(
                f"expected an Inspection, got {type(inspection).__name__}. For an image that cannot be read there is "
                "add_failure."
            )
        if inspection.product != self._inspector.product:
            raise ArgumentError(
                f"expected an inspection of {self._inspector.product}, got one of {inspection.product}. A report is "
                "of one product."
            )
        entry = Entry(
            len(self._entries) + 1,
            str(file) or inspection.name or f"image {len(self._entries) + 1}",
            inspection.verdict,
            inspection.severity,
            inspection.is_anomalous,
            _finding(inspection),
            inspection.timings_ms["total"],
        )
        heap, most = self._shown[entry.verdict], self._most[entry.verdict]
        # A missing part, say, is no matter of the score.
        by_count = entry.verdict == "anomalous" and entry.severity <= 1
        key = (math.inf if by_count else entry.severity, -entry.number)
        if most and (len(heap) < most or key > heap[0][:2]):
            (heapq.heappush if len(heap) < most else heapq.heapreplace)(heap, (*key, entry, _jpeg(inspection)))
        self._entries.append(entry)

    def add_failure(self, file: str, message: str) -> None:
        """Take a file along that could not be read.

        Args:
            file: What it is called.
            message: Why.
        """
        self._failures.append((str(file), message))

    def write(self, path: str | Path, title: str = "", *, drift: Drift | None = None) -> None:
        """Write the page, whole or not at all; an older one is replaced, and nothing else is.

        Args:
            path: Of the HTML file.
            title: Headline; empty takes the product's name.
            drift: What `Inspector.drift` says of these images; None for nothing.

        Raises:
            FewshotADError: It cannot be written, something else is there, or nothing was added.
        """
        path = Path(arguments.file_name(path, "path", FewshotADError))
        check_report(path)
        page = self.render(title, drift=drift).encode("utf-8")
        try:
            write_atomically(path, page)
        except OSError as error:
            raise FewshotADError(write_failure(path, error, len(page))) from error

    def render(self, title: str = "", *, drift: Drift | None = None) -> str:
        """The page as HTML; see `write`.

        Raises:
            FewshotADError: Nothing was added.
        """
        if not self._entries and not self._failures:
            raise FewshotADError("expected inspections to report on, got none. Add some.")
        return document(
            title or f"{self._inspector.product}: {len(self._entries)} images inspected",
            self._inspector.product,
            [
                *self._summary(drift),
                *histogram(self._entries),
                *run(self._entries),
                *self._gallery(),
                *self._table(),
                *self._product(),
            ],
        )

    def _summary(self, drift: Drift | None) -> Iterator[str]:
        counts = Counter(entry.verdict for entry in self._entries)
        total = len(self._entries)
        yield '<section><h2>Summary</h2><ul class="tiles">'
        for verdict in VERDICTS:
            if verdict in ("good", "anomalous") or counts[verdict]:
                yield tile(verdict, verdict_words(verdict).lower(), counts[verdict], total)
        if self._failures:
            yield tile("unreadable", "not readable", len(self._failures), total + len(self._failures))
        yield "</ul>"
        judged = total - counts["not_inspectable"]
        if judged:
            rate = Rate(counts["anomalous"], judged)
            low, high = rate.interval
            yield (
                f"<p>{rate.count} of {judged} images that could be judged are anomalous, {rate.rate:.1%}. If each "
                f"shows another part, and they are like the others of the line, that has {low:.1%} to {high:.1%} with "
                "95% confidence.</p>"
            )
        if drift is not None:
            yield f"<p>Drift: {text_of(drift.message)}</p>"
        yield "</section>"

    def _gallery(self) -> Iterator[str]:
        sections: tuple[tuple[Verdict, str, str], ...] = (
            ("anomalous", "Anomalous", "Worst first; before all, what is so whatever its score."),
            ("review", "To be looked at", "Closest to the threshold first."),
            ("not_inspectable", "Not judged", "The first of them."),
            ("good", "Closest calls", "Good images that came closest to the threshold."),
        )
        for verdict, head, said in sections:
            heap = self._shown[verdict]
            if not heap:
                continue
            count = sum(entry.verdict == verdict for entry in self._entries)
            more = "" if len(heap) == count else f" {len(heap)} of {count}."
            yield f"<section><h2>{head}</h2><p>{said}{more}</p>"
            yield from _cards(sorted(heap, key=lambda one: (-one[0], -one[1])))

    def _table(self) -> Iterator[str]:
        rows = self._entries
        said = f"All {len(rows)} images, in the order in which they came."
        if len(rows) > MAX_ROWS:
            rows = [entry for entry in rows if entry.verdict != "good"][:MAX_ROWS]
            said = f"The {len(rows)} images that are not good, of {len(self._entries)}, at most {MAX_ROWS}."
        yield f"<section><h2>Every image</h2><table><caption>{said}</caption>"
        yield (
            '<thead><tr><th scope="col" class="number">Number</th><th scope="col">File</th><th scope="col">Verdict</th>'
            '<th scope="col" class="number">Severity</th><th scope="col">What is said</th>'
            '<th scope="col" class="number">ms</th></tr></thead><tbody>'
        )
        for entry in rows:
            yield (
                f'<tr><td class="number">{entry.number}</td><td>{text_of(entry.file)}</td>'
                f'<td class="{entry.verdict}">{verdict_words(entry.verdict).lower()}</td>'
                f'<td class="number">{format_severity(entry.severity, entry.is_anomalous)}</td>'
                f'<td>{text_of(entry.finding)}</td><td class="number">{entry.milliseconds:.0f}</td></tr>'
            )
        yield "</tbody></table>"
        if self._failures:
            first = f", the first {MAX_ROWS} of {len(self._failures)}" if len(self._failures) > MAX_ROWS else ""
            yield f'<table><caption>Not readable{first}.</caption><thead><tr><th scope="col">File</th>'
            yield '<th scope="col">Why</th></tr></thead><tbody>'
            for file, message in itertools.islice(self._failures, MAX_ROWS):
                yield f"<tr><td>{text_of(file)}</td><td>{text_of(message)}</td></tr>"
            yield "</tbody></table>"
        yield "</section>"

    def _product(self) -> Iterator[str]:
        inspector = self._inspector
        fields = {"Product": inspector.product}
        fields |= _facts(inspector) if isinstance(inspector, Inspector) else inspector.facts()
        times = [entry.milliseconds for entry in self._entries]
        if times:
            middle, late, slowest = np.quantile(times, (0.5, 0.95, 1.0))
            fields["Time per image"] = f"{middle:.1f} ms (median), {late:.1f} ms (95%), {slowest:.1f} ms (slowest)"
        changes = inspector.history() if isinstance(inspector, Inspector) else ()
        if changes:
            fields["Changes"] = (
                f"{len(changes)} since it was enrolled, the last: {changes[-1].text} ({changes[-1].time})"
            )
        yield "<section><h2>The product</h2><dl>"
        for name, value in fields.items():
            yield f"<dt>{text_of(name)}</dt><dd>{text_of(value)}</dd>"
        yield "</dl></section>"


def _facts(inspector: Inspector) -> dict[str, str]:
    calibration, found = inspector.calibration, inspector.sensitivity
    by_hand = inspector.threshold if inspector.threshold_set_by_hand else None
    word = "images" if inspector.model.parts is None else "parts"
    facts = {
        "Enrolled from": f"{len(inspector.enrollment.support)} {word}, {inspector.enrollment.created}",
        "Encoder": f"{inspector.encoder.spec.name}, sha256 {inspector.encoder.spec.sha256[:12]}",
        "Threshold": f"{inspector.threshold:.6g}{', set by hand' if by_hand is not None else ''}",
        "Where it comes from": calibration.explain(by_hand),
    }
    if found is not None:
        facts["What it finds"] = found.explain()
    return facts


def check_report(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Make sure that a page replaces nothing but an older one.

    Args:
        path: Of the HTML file.
        inputs: Files that are read, none of which may be replaced.

    Raises:
        FewshotADError: Something is there that must stay.
    """
    check_output(path, inputs=inputs, obstacle=_no_report, error=FewshotADError)


def _no_report(path: Path) -> str | None:
    with path.open("rb") as file:
        if MARK.encode() in file.read(1024):
            return None
    return "expected an older report to replace, or no file, got something else. Choose another name."


def _finding(inspection: Inspection) -> str:
    said = [one for one in (inspection.reason, inspection.parts_finding) if one]
    if inspection.regions:
        x, y, width, height = inspection.regions[0].box
        more = f", and {len(inspection.regions) - 1} more" if len(inspection.regions) > 1 else ""
        said.append(f"at x {x}..{x + width - 1}, y {y}..{y + height - 1}{more}")
    return "; ".join(said)


@native_work()
def _jpeg(inspection: Inspection) -> bytes:
    picture = inspection.overlay()
    shrink = PICTURE_SIDE / max(picture.shape[:2])
    if shrink < 1:
        size = max(1, round(picture.shape[1] * shrink)), max(1, round(picture.shape[0] * shrink))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return encoded.tobytes()


def _cards(shown: Sequence[tuple[float, int, Entry, bytes]]) -> Iterator[str]:
    yield '<ul class="cards">'
    for _, _, entry, jpeg in shown:
        words = verdict_words(entry.verdict).lower()
        severity = format_severity(entry.severity, entry.is_anomalous)
        alt = f"{entry.file}: {words}, severity {severity}{f', {entry.finding}' if entry.finding else ''}"
        yield (
            f'<li class="{entry.verdict}"><img alt="{text_of(alt)}" src="data:image/jpeg;base64,'
            f'{base64.b64encode(jpeg).decode()}"><b>{words}, severity {severity}</b>'
            f"<span>{text_of(entry.file)}</span><small>{text_of(entry.finding)}</small></li>"
        )
    yield "</ul></section>"
