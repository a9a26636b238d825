"""What the shell commands show and write: verdict lines, JSON, tables, overlays, progress."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fewshot_ad.errors import FewshotADError

if TYPE_CHECKING:
    from fewshot_ad.arrays import Progress
    from fewshot_ad.inspection import Inspection

EXIT_GOOD, EXIT_ANOMALY, EXIT_ERROR = 0, 1, 2

COLUMNS = ("file", "verdict", "score", "threshold", "severity", "x", "y", "width", "height", "ms", "error")

_bar_console: Any = None


def report_failure(message: str, as_json: bool, file: str | None = None) -> None:
    """Say what went wrong: on stderr, or as a JSON object."""
    if as_json:
        print_json({"file": file, "error": message} if file else {"error": message})
    else:
        print(f"error: {message}", file=sys.stderr)


def print_json(value: dict[str, Any]) -> None:
    """One object, one line, ASCII only: any terminal and any pipe takes it."""
    print(json.dumps(value), flush=True)


def say(text: str) -> None:
    """A line of text, above the progress bar if one is shown."""
    if _bar_console is not None:
        _bar_console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        print(text, flush=True)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress | None]:
    """A progress bar on stderr, shown only on a terminal and erased at the end."""
    global _bar_console
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:>10}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        # Verdicts go to stdout; only where that is the same terminal must they make way for the bar.
        _bar_console = Console() if sys.stdout.isatty() else None
        if _bar_console is not None:
            bar.live.console = _bar_console
        try:
            yield update
        finally:
            _bar_console = None


def row(path: Path, result: Inspection) -> dict[str, Any]:
    """A line of the table."""
    cells: dict[str, Any] = {
        "file": str(path),
        "verdict": "ANOMALOUS" if result.is_anomalous else "GOOD",
        "score": f"{result.score:.6g}",
        "threshold": f"{result.threshold:.6g}",
        "severity": f"{result.severity:.4f}",
        "ms": f"{result.timings_ms['total']:.1f}",
    }
    if result.regions:
        cells |= dict(zip(("x", "y", "width", "height"), result.regions[0].box, strict=True))
    return cells


def verdict(path: Path, result: Inspection) -> str:
    """A line for the engineer."""
    word = "ANOMALOUS" if result.is_anomalous else "good     "
    where = ""
    if result.regions:
        x, y, width, height = result.regions[0].box
        where = f"  at x {x}..{x + width - 1}, y {y}..{y + height - 1}"
        where += f" and {len(result.regions) - 1} more" if len(result.regions) > 1 else ""
    return f"{word}  severity {result.severity:5.2f}  {path}{where}  ({result.timings_ms['total']:.0f} ms)"


@contextmanager
def table(path: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A CSV file open for rows of `COLUMNS`; without a path, rows go nowhere."""
    if path is None:
        yield lambda cells: None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", newline="", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        writer = csv.DictWriter(file, COLUMNS)

        def write(cells: dict[str, Any]) -> None:
            try:
                writer.writerow(cells)
                file.flush()
            except OSError as error:
                raise _unwritable(path, error) from error

        write(dict(zip(COLUMNS, COLUMNS, strict=True)))
        yield write


def _unwritable(path: Path, error: OSError) -> FewshotADError:
    return FewshotADError(f"{path}: cannot be written ({error.strerror}). Free some space or choose another place.")


def overlay_names(paths: list[Path]) -> list[str]:
    """A file name an overlay: the stem, led by parent folders where two images share one."""
    names = [path.stem for path in paths]
    depth = 1
    while len(set(names)) < len(set(paths)) and depth < 32:
        depth += 1
        names = ["_".join([*path.parts[-depth:-1], path.stem]).replace("/", "") for path in paths]
        if all(depth > len(path.parts) for path in paths):
            names = [f"{i:05d}_{path.stem}" for i, path in enumerate(paths)]
    # The suffix keeps an overlay from ever replacing an image that lies in the same folder.
    return [f"{name}_overlay.png" for name in names]


def write_overlay(path: Path, result: Inspection) -> None:
    """Write an inspection's overlay as PNG."""
    from fewshot_ad.demo import write_png

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    write_png(path, result.overlay())


@contextmanager
def reported_errors(as_json: bool) -> Iterator[None]:
    """Turn whatever goes wrong into one message and exit code 2: 1 must never mean anything but an anomaly."""
    try:
        yield
    except (typer.Exit, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        report_failure("interrupted", as_json)
        raise typer.Exit(EXIT_ERROR) from None
    except (FewshotADError, ValueError) as error:
        report_failure(str(error), as_json)
        raise typer.Exit(EXIT_ERROR) from None
    except Exception as error:
        logging.getLogger(__name__).debug("unexpected", exc_info=True)
        report_failure(f"{type(error).__name__}: {error}. Set FEWSHOT_AD_DEBUG=1 to see where.", as_json)
        raise typer.Exit(EXIT_ERROR) from None
