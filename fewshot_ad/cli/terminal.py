"""What the shell commands show: verdict lines, JSON, notes, progress, errors."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fewshot_ad.failures import explanation
from fewshot_ad.inspection.verdict import verdict_column
from fewshot_ad.printable import printable

if TYPE_CHECKING:
    from fewshot_ad.arrays import Progress
    from fewshot_ad.inspection.result import Inspection

EXIT_GOOD, EXIT_ANOMALY, EXIT_ERROR, EXIT_REVIEW = 0, 1, 2, 3
LINE_INTERVAL_S = 10.0  # between two lines of progress where standard error is no terminal

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
    # JSON has no Infinity and no NaN: a program could not read the line.
    _print(json.dumps({"schema": f"fewshot-ad/{kind}/1", **value}, allow_nan=False))


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
    with contextlib.suppress(OSError):
        print(f"note: {printable(text)}", file=sys.stderr)


@contextmanager
def progress_bar(quiet: bool, lines: bool = True) -> Iterator[Progress | None]:
    """Show on stderr how far long work is: a bar on a terminal, erased at the end; elsewhere a line now and then.

    Args:
        quiet: Show nothing.
        lines: Whether lines are shown where there is no terminal: not of a command that prints as it goes on.

    Yields:
        The callback that moves the bar, or prints the lines; None where nothing is shown.
    """
    global _bar_console
    if quiet or sys.stderr is None:
        yield None
        return
    if not sys.stderr.isatty():
        yield _progress_lines() if lines else None
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
            # What is done makes room: a benchmark has hundreds of stages.
            bar.update(tasks[stage], completed=done, total=total, visible=done < total)

        # Verdicts go to stdout; only where that is the same terminal must they make way for the bar.
        _bar_console = Console() if sys.stdout is not None and sys.stdout.isatty() else None
        if _bar_console is not None:
            bar.live.console = _bar_console
        try:
            yield update
        finally:
            _bar_console = None


def _progress_lines() -> Progress:
    """Lines on stderr, `LINE_INTERVAL_S` apart: a log file shows that long work goes on; short work is silent."""
    clock = time.monotonic
    last = clock()
    begun: dict[str, tuple[float, int]] = {}

    def update(stage: str, done: int, total: int) -> None:
        nonlocal last
        start, first = begun.setdefault(stage, (clock(), done))
        if clock() - last < LINE_INTERVAL_S:
            return
        last = clock()
        line = f"{printable(stage)}: {done} of {total}"
        if done > first:
            remaining = int((last - start) * (total - done) / (done - first))
            line += f", about {datetime.timedelta(seconds=remaining)} left"
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)

    return update


def verdict_line(path: Path, result: Inspection) -> str:
    """A verdict as one line of text: good or anomalous, how far, which file, where, and the time it took."""
    if result.reason:
        return f"NOT INSPECTABLE  {path}: {result.reason}  ({result.timings_ms['total']:.0f} ms)"
    where = ""
    if result.regions:
        x, y, width, height = result.regions[0].box
        where = f"  at x {x}..{x + width - 1}, y {y}..{y + height - 1}"
        where += f" and {len(result.regions) - 1} more" if len(result.regions) > 1 else ""
    if result.parts_finding:
        where = f"  {result.parts_finding}{where}"
    column = verdict_column(result.severity, result.is_anomalous, result.verdict == "review")
    return f"{column}  {path}{where}  ({result.timings_ms['total']:.0f} ms)"


@contextmanager
def reported_errors(as_json: bool) -> Iterator[None]:
    """Turn whatever goes wrong into one message and exit code 2: code 1 must mean an anomaly and nothing else.

    Args:
        as_json: Whether the command was asked for JSON.

    Raises:
        typer.Exit: Something went wrong, and is reported.
        typer.BadParameter: As it came; the program reports it with the command that it belongs to.
        UndeliveredError: As it came: it is the stream that the message would go to.
    """
    try:
        yield
    except (typer.Exit, typer.BadParameter, UndeliveredError):
        raise
    except KeyboardInterrupt:
        report_failure("interrupted", as_json)
        raise typer.Exit(EXIT_ERROR) from None
    except Exception as error:
        report_failure(explained(error), as_json)
        raise typer.Exit(EXIT_ERROR) from None


def explained(error: BaseException) -> str:
    """The message about an error, which `FEWSHOT_AD_DEBUG` shows in full."""
    logging.getLogger(__name__).debug("unexpected", exc_info=error)
    return explanation(error)
