"""The log of a station: a line for each thing that happens, as text or as JSON."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from typing import Literal

from fewshot_ad.line.record import Record
from fewshot_ad.printable import printable

logger = logging.getLogger("fewshot_ad.station")


class JsonLines(logging.Formatter):
    """A JSON object per line: time, level, logger, message, and what belongs to it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, in ASCII."""
        line = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextLines(logging.Formatter):
    """Time, level and message on one line, whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows it."""
        time = datetime.datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        line = f"{time} {record.levelname.lower():7} {printable(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def log_to_stderr(form: Literal["text", "json"]) -> None:
    """Have everything that the package logs written to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("fewshot_ad").setLevel(logging.INFO)
    # Requests are in the journal; of the server, what goes wrong.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # What a second Ctrl-C breaks off is no error.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "CancelledError" not in record.getMessage())
    # A stream that takes no more, as of a full disk, must not fill it with tracebacks of its own.
    logging.raiseExceptions = False


def log_record(record: Record) -> None:
    """Log an inspection."""
    fields = record.model_dump(mode="json", include={"id", "product", "verdict", "severity", "milliseconds", "source"})
    about = f" severity {record.severity:.2f}" if record.severity is not None else f" {record.reason}"
    logger.info(
        "%s: %s %s%s (%.0f ms)",
        record.product or "no product",
        record.verdict,
        record.name or record.id,
        about,
        record.milliseconds,
        extra={"fields": {**fields, "name": record.name}},
    )
