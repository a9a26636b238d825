"""What the tests of sinks share: records, ports that are free, and waiting for something to come true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fewshot_ad.line.record import Record, RecordVerdict, new_id, utc_now
from tests.line.conftest import free_port

__all__ = ["free_port", "record_of", "wait_until"]


def record_of(verdict: RecordVerdict = "good", **changes: Any) -> Record:
    judged = {} if verdict == "unreadable" else {"score": 0.5, "threshold": 1.25, "severity": 0.4}
    content = {
        "id": new_id(),
        "station": "press 3",
        "time": utc_now(),
        "product": "bracket",
        "source": "http",
        "verdict": verdict,
        "milliseconds": 12.5,
        **judged,
        **changes,
    }
    return Record.model_validate(content)


def wait_until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.01)
