"""Standard output and error of the program: missing, closed or full, they never change what an exit code means."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from fewshot_ad.cli.terminal import (
    EXIT_ANOMALY,
    EXIT_ERROR,
    EXIT_GOOD,
    UndeliveredError,
    explained,
    report_failure,
    say_note,
)


def with_streams(run: Callable[[], object]) -> NoReturn:
    """Run the program and exit: 0 all good, 1 an anomaly and nothing else, 2 whatever went wrong.

    An output that cannot be delivered is an error. A reader that has left (`| head -1`) is told nothing; everything
    else is, on standard error.

    Args:
        run: Runs the command and returns its exit code; None or anything else that is no number for 0.
    """
    _open_missing()
    code = _outcome(run)
    if not (_delivered(sys.stdout) and _delivered(sys.stderr)):
        code = EXIT_ERROR
    sys.exit(code)


def show_notes() -> None:
    """Show the package's notes on standard error, each once.

    These are warnings, of a GPU that is not there, images of many sizes, or a file that another process writes; and of
    lists of images also what they leave out, which the package itself logs as information.
    """
    levels = {
        "encoder": logging.WARNING,
        "search": logging.WARNING,
        "storage": logging.WARNING,
        "images": logging.INFO,
        "plugins": logging.WARNING,
    }
    for name, level in levels.items():
        logger = logging.getLogger(f"fewshot_ad.{name}")
        logger.addHandler(_Notes(level))
        if logger.getEffectiveLevel() > level:
            logger.setLevel(level)
        logger.propagate = False


class _Notes(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._shown:
            self._shown.add(text)
            say_note(text)


def _open_missing() -> None:
    # Whatever file is opened first would take the number of a closed stream, and native libraries print there.
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    # A file name that the terminal cannot show must not stop a batch.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _nowhere() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")


def _outcome(run: Callable[[], object]) -> int:
    try:
        code = run()
    except UndeliveredError as error:
        if not error.reader_left:
            report_failure(str(error), False)
        return EXIT_ERROR
    except (KeyboardInterrupt, typer.Abort):
        report_failure("interrupted", False)
        return EXIT_ERROR
    except SystemExit as end:
        # Not the program's own way to end: 1 means something else to those who use it.
        return EXIT_GOOD if end.code in (None, 0) else EXIT_ERROR
    except BaseException as error:
        # What is said here cannot always be printed.
        with contextlib.suppress(UndeliveredError, OSError):
            _report(error)
        return EXIT_ERROR
    if not isinstance(code, int):
        return EXIT_GOOD
    return code if code in (EXIT_GOOD, EXIT_ANOMALY) else EXIT_ERROR


def _report(error: BaseException) -> None:
    if isinstance(error, BrokenPipeError):
        return
    if hasattr(error, "show"):
        # click's own errors know how to show themselves.
        error.show()
    elif isinstance(error, OSError) and error.filename is None:
        report_failure(str(UndeliveredError(error)), False)
    else:
        report_failure(explained(error), "--json" in sys.argv)


def _delivered(stream: Any) -> bool:
    """Write what is left of a stream; where that fails, leave nothing for the interpreter to fail at once more."""
    try:
        stream.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
