"""Files beside the verdicts, the table and the overlays: what they may replace, and how they are written."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_ad.cli.terminal import explained, report_failure
from fewshot_ad.errors import FewshotADError
from fewshot_ad.printable import no_formula, printable
from fewshot_ad.storage import check_output, sweep, write_failure

if TYPE_CHECKING:
    from fewshot_ad.inspection import Inspection

COLUMNS = (
    *("file", "verdict", "score", "threshold", "severity", "x", "y", "width", "height", "ms", "error"),
    *("regions", "schema"),
)
TABLE_SCHEMA = "fewshot-ad/inspect-csv/1"

# Keeps an overlay from taking the place of an image in the same folder.
OVERLAY = "_overlay.png"
# How the record of a benchmark begins, which hours of measuring have filled.
RECORD_START = '{"key": "'


class Outputs:
    """Files beside the verdicts: one that cannot be written is reported once and then left, and the verdicts go on.

    Args:
        as_json: Whether the command was asked for JSON.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._failed: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether everything was written so far."""
        return not self._failed

    def write(self, output: str, write: Callable[[], object]) -> bool:
        """Write something, unless this output has failed before.

        Args:
            output: Name of the output.
            write: Writes it; its `FewshotADError` and `OSError` are reported.

        Returns:
            Whether it is written.
        """
        if output in self._failed:
            return False
        try:
            write()
        except (FewshotADError, OSError) as error:
            self._failed.add(output)
            report_failure(explained(error), self._as_json)
        return output not in self._failed


def check_table(path: Path | None, inputs: Iterable[Path], force: bool) -> None:
    """Make sure that the table of verdicts replaces nothing but an older one, see `check_text`."""
    check_text(path, ",".join(COLUMNS[:3]), inputs, force=force, error=FewshotADError)


def check_text(
    path: Path | None, start: str, inputs: Iterable[Path], *, force: bool, error: type[FewshotADError]
) -> None:
    """Make sure that a text replaces nothing but an older one of its kind.

    Args:
        path: The file to write; None for none.
        start: How all texts of its kind begin, as a regular expression.
        inputs: Files that the command reads.
        force: Whether another text may be replaced; what is no text, and the record of a benchmark, never is.
        error: Class of the errors.

    Raises:
        FewshotADError: Something is there that must stay. Of the class `error`.
    """
    if path is None:
        return
    if str(path) == "-":
        raise error(
            "expected the name of a file, got -. What this command reports stands on standard output already: with "
            "--json for programs, one object per line."
        )

    def obstacle(path: Path) -> str | None:
        with path.open("rb") as file:
            head = file.read(4096).decode("utf-8", "replace")
        if re.match(start, head):
            return None
        expected = "expected an older output of this kind to replace, or no file, got"
        if "\0" in head or head.startswith(RECORD_START):
            return f"{expected} something else. Choose another name."
        return None if force else f"{expected} another text. Choose another name, or give --force to replace it."

    check_output(path, inputs=inputs, obstacle=obstacle, error=error)


def check_overlays(overlays: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Make sure that the overlays can be written, and that none replaces a file that the command reads.

    Raises:
        FewshotADError: The folder cannot be made, or an overlay has the place of such a file or of something else.
    """
    overlays = list(overlays)
    for folder in {overlay.parent for overlay in overlays}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FewshotADError(write_failure(folder, error)) from error
        sweep(folder)
    # A folder that was inspected into itself holds overlays among its images, under whatever links.
    sources = [path for path in inputs if path.resolve().name.endswith(OVERLAY)] if overlays else []
    for overlay in overlays:
        check_output(overlay, inputs=sources)


@contextmanager
def verdict_table(path: Path | None, outputs: Outputs) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Open a CSV file for rows of `COLUMNS`; it grows row by row, so that others can read it meanwhile.

    Args:
        path: The file; None for no table.
        outputs: Reports a row that cannot be written.

    Yields:
        The function that writes one row; without a file it does nothing.

    Raises:
        FewshotADError: The file cannot be opened.
    """
    if path is None:
        yield lambda cells: None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk has refused must not come up again when the file is closed.
        file = path.open("wb", buffering=0)
    except OSError as error:
        raise FewshotADError(write_failure(path, error)) from error
    with file:

        def write(cells: dict[str, Any]) -> None:
            line = io.StringIO(newline="")
            csv.DictWriter(line, COLUMNS).writerow(cells)
            data = line.getvalue().encode("utf-8", "backslashreplace")
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError as error:
                raise FewshotADError(write_failure(path, error)) from error

        def write_or_report(cells: dict[str, Any]) -> None:
            outputs.write("table", lambda: write(cells))

        write_or_report(dict(zip(COLUMNS, COLUMNS, strict=True)))
        yield write_or_report


def overlay_names(paths: list[Path]) -> list[str]:
    """File names for the overlays of images, in their order.

    Each is the stem of the image; where two images share one, all are led by the names of their folders.
    """
    names = [path.stem for path in paths]
    depth = 1
    while len(set(names)) < len(set(paths)) and depth < 32:
        depth += 1
        names = ["_".join([*path.parts[-depth:-1], path.stem]).replace("/", "") for path in paths]
        if all(depth > len(path.parts) for path in paths):
            names = [f"{i:05d}_{path.stem}" for i, path in enumerate(paths)]
    return [f"{name}{OVERLAY}" for name in names]


def write_overlay(path: Path, result: Inspection) -> None:
    """Write the overlay of an inspection as PNG.

    Raises:
        FewshotADError: The file cannot be written.
    """
    from fewshot_ad.demo import write_png

    write_png(path, result.overlay())


def verdict_row(path: Path, result: Inspection) -> dict[str, Any]:
    """A row of the table of verdicts, by the names in `COLUMNS`; x to height are the box of the worst region."""
    cells: dict[str, Any] = {
        "file": str(path),
        "verdict": "ANOMALOUS" if result.is_anomalous else "GOOD",
        "score": f"{result.score:.6g}",
        "threshold": f"{result.threshold:.6g}",
        "severity": f"{result.severity:.4f}",
        "ms": f"{result.timings_ms['total']:.1f}",
        "regions": json.dumps(result.as_dict()["regions"], allow_nan=False),
    }
    if result.regions:
        cells |= dict(zip(("x", "y", "width", "height"), result.regions[0].box, strict=True))
    return _row(cells)


def failure_row(path: Path, message: str) -> dict[str, Any]:
    """The row of an image that could not be inspected."""
    return _row({"file": str(path), "verdict": "ERROR", "error": message})


def _row(cells: dict[str, Any]) -> dict[str, Any]:
    # A file's name is not ours to trust, nor is a message that holds it.
    safe = {name: no_formula(printable(cell)) if isinstance(cell, str) else cell for name, cell in cells.items()}
    return {**safe, "schema": TABLE_SCHEMA}
