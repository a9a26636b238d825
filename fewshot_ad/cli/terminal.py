"""What the shell commands show and write: verdict lines, JSON, tables, overlays, progress, errors."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fewshot_ad.errors import FewshotADError, sentence
from fewshot_ad.printable import printable
from fewshot_ad.storage import check_output, sweep, write_failure

if TYPE_CHECKING:
    from fewshot_ad.arrays import Progress
    from fewshot_ad.inspection import Inspection

EXIT_GOOD, EXIT_ANOMALY, EXIT_ERROR = 0, 1, 2

COLUMNS = (
    *("file", "verdict", "score", "threshold", "severity", "x", "y", "width", "height", "ms", "error"),
    *("regions", "schema"),
)
TABLE_SCHEMA = "fewshot-ad/inspect-csv/1"
# What makes a spreadsheet read a cell as a formula.
FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")

# Keeps an overlay from taking the place of an image in the same folder.
OVERLAY = "_overlay.png"

_bar_console: Any = None


def report_failure(message: str, as_json: bool, file: str | None = None) -> None:
    """Report what went wrong: as text on stderr, or as a JSON object on stdout.

    Args:
        message: The reason, and what to do about it.
        as_json: Whether the command was asked for JSON.
        file: The file that it concerns, for the JSON object.
    """
    if not as_json:
        # A full disk behind standard error must not hide the failure: the exit code says it, too.
        with contextlib.suppress(OSError):
            print(f"error: {printable(message)}", file=sys.stderr)
        return
    try:
        print_json("error", {"file": file, "error": message} if file else {"error": message})
    except UndeliveredError:
        report_failure(message, False)
        raise


def print_json(kind: str, value: dict[str, Any]) -> None:
    """Print an object on one line, in ASCII: any terminal and any pipe takes it.

    Args:
        kind: What its fields are, by the words of the command; `schema` says it. docs/reference/schemas/ has a file
            for each.
        value: The fields.
    """
    _print(json.dumps({"schema": f"fewshot-ad/{kind}/1", **value}))


def say(text: str) -> None:
    """Print one line of text, above the progress bar if one is shown; what would end the line is escaped."""
    text = printable(text)
    if _bar_console is not None:
        _bar_console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        _print(text)


class UndeliveredError(Exception):
    """Standard output takes no more.

    Args:
        cause: Why.

    Attributes:
        reader_left: Whether it is a pipe whose reader has left, as `head` does.
    """

    def __init__(self, cause: OSError) -> None:
        super().__init__(
            f"standard output cannot be written ({cause.strerror}), so not all was reported. Free some space, or send "
            "it somewhere else."
        )
        self.reader_left = isinstance(cause, BrokenPipeError)


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError as error:
        raise UndeliveredError(error) from error


def say_note(text: str) -> None:
    """Print one line on stderr that a command's answer does not depend on."""
    print(f"note: {printable(text)}", file=sys.stderr)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress | None]:
    """Show a progress bar on stderr, on a terminal only, and erase it at the end.

    Args:
        quiet: Show none.

    Yields:
        The callback that moves the bar; None where none is shown.
    """
    global _bar_console
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    stage = TextColumn("{task.description:>10}", markup=False)
    columns = (stage, BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(printable(stage), total=total)
            bar.update(tasks[stage], completed=done, total=total)

        # Verdicts go to stdout; only where that is the same terminal must they make way for the bar.
        _bar_console = Console() if sys.stdout is not None and sys.stdout.isatty() else None
        if _bar_console is not None:
            bar.live.console = _bar_console
        try:
            yield update
        finally:
            _bar_console = None


def verdict_row(path: Path, result: Inspection) -> dict[str, Any]:
    """A row of the table of verdicts, by the names in `COLUMNS`; x to height are the box of the worst region."""
    cells: dict[str, Any] = {
        "file": str(path),
        "verdict": "ANOMALOUS" if result.is_anomalous else "GOOD",
        "score": f"{result.score:.6g}",
        "threshold": f"{result.threshold:.6g}",
        "severity": f"{result.severity:.4f}",
        "ms": f"{result.timings_ms['total']:.1f}",
        "regions": json.dumps(result.as_dict()["regions"]),
    }
    if result.regions:
        cells |= dict(zip(("x", "y", "width", "height"), result.regions[0].box, strict=True))
    return _row(cells)


def failure_row(path: Path, message: str) -> dict[str, Any]:
    """The row of an image that could not be inspected."""
    return _row({"file": str(path), "verdict": "ERROR", "error": message})


def _row(cells: dict[str, Any]) -> dict[str, Any]:
    return {name: _no_formula(cell) for name, cell in cells.items()} | {"schema": TABLE_SCHEMA}


def _no_formula(cell: Any) -> Any:
    """A file's name is not ours to trust: `=cmd|...` must not run when the table is opened in a spreadsheet."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA_STARTS):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a negative number stays one


def verdict_line(path: Path, result: Inspection) -> str:
    """A verdict as one line of text: good or anomalous, how far, which file, where, and the time it took."""
    word = "ANOMALOUS" if result.is_anomalous else "good     "
    where = ""
    if result.regions:
        x, y, width, height = result.regions[0].box
        where = f"  at x {x}..{x + width - 1}, y {y}..{y + height - 1}"
        where += f" and {len(result.regions) - 1} more" if len(result.regions) > 1 else ""
    return f"{word}  severity {result.severity:5.2f}  {path}{where}  ({result.timings_ms['total']:.0f} ms)"


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
            report_failure(str(error), self._as_json)
        return output not in self._failed


def check_table(path: Path | None, inputs: Iterable[Path], force: bool) -> None:
    """Make sure that the table of verdicts replaces nothing but an older one.

    Args:
        path: The file; None for no table.
        inputs: Files that the command reads.
        force: Whether another text may be replaced; what is no text never is.

    Raises:
        FewshotADError: Something is there that must stay.
    """
    if path is None:
        return
    if str(path) == "-":
        raise FewshotADError(
            "expected the name of a file for --csv, got -. Verdicts stand on standard output already: with --json for "
            "programs, one object per line."
        )

    def obstacle(path: Path) -> str | None:
        with path.open("rb") as file:
            head = file.read(4096)
        if head.startswith(",".join(COLUMNS[:3]).encode()):
            return None
        if b"\0" in head:
            return "expected an older table to replace, or no file, got something else. Choose another name for --csv."
        return (
            None
            if force
            else (
                "expected an older table of verdicts to replace, or no file, got another text. Choose another name for "
                "--csv, or give --force to replace it."
            )
        )

    check_output(path, inputs=inputs, obstacle=obstacle)


def check_overlays(overlays: Sequence[Path | None], inputs: Iterable[Path]) -> None:
    """Make sure that the overlays can be written, and that none replaces a file that the command reads.

    Raises:
        FewshotADError: The folder cannot be made, or an overlay has the place of such a file or of something else.
    """
    # A folder that was inspected into itself holds overlays among its images, under whatever links.
    sources = [path for path in inputs if path.resolve().name.endswith(OVERLAY)]
    for folder in {overlay.parent for overlay in overlays if overlay is not None}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FewshotADError(write_failure(folder, error)) from error
        sweep(folder)
    for overlay in overlays:
        if overlay is not None:
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


@contextmanager
def reported_errors(as_json: bool) -> Iterator[None]:
    """Turn whatever goes wrong into one message and exit code 2: code 1 must mean an anomaly and nothing else.

    Args:
        as_json: Whether the command was asked for JSON.

    Raises:
        typer.Exit: Something went wrong, and is reported.
        typer.BadParameter: As it came; typer itself reports it, with the command's usage.
        UndeliveredError: As it came: it is the stream that the message would go to.
    """
    try:
        yield
    except (typer.Exit, typer.BadParameter, UndeliveredError):
        raise
    except KeyboardInterrupt:
        report_failure("interrupted", as_json)
        raise typer.Exit(EXIT_ERROR) from None
    except (FewshotADError, ValueError) as error:
        report_failure(str(error), as_json)
        raise typer.Exit(EXIT_ERROR) from None
    except Exception as error:
        logging.getLogger(__name__).debug("unexpected", exc_info=True)
        report_failure(f"{type(error).__name__}: {sentence(error)} Set FEWSHOT_AD_DEBUG=1 to see where.", as_json)
        raise typer.Exit(EXIT_ERROR) from None
