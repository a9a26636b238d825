"""A station that only remembers, for sources to send to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.line.record import Record, RecordVerdict, new_id, utc_now


@dataclass(frozen=True)
class Sent:
    """What came."""

    image: bytes | Uint8Array
    product: str | None
    source: str
    name: str
    key: str | None
    record: Record


class StandIn:
    """Gives a verdict by the first bytes, the same for a key it has seen, and fails when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.failures: list[Exception] = []
        self.asked = 0
        self._lock = threading.Lock()

    def __call__(
        self, image: bytes | Uint8Array, *, product: str | None, source: str, name: str, key: str | None = None
    ) -> Record:
        with self._lock:
            self.asked += 1
            if self.failures:
                raise self.failures.pop(0)
            for one in self.sent:
                if key is not None and one.key == key:
                    return one.record
            record = self.record(verdict_of(image), product=product or "bracket", source=source, name=name, key=key)
            self.sent.append(Sent(image, product, source, name, key, record))
            return record

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.sent]

    @staticmethod
    def record(verdict: RecordVerdict, **more: Any) -> Record:
        content = {"id": new_id(), "station": "s", "time": utc_now(), "verdict": verdict, "milliseconds": 1.0, **more}
        return Record.model_validate(content)


def verdict_of(image: bytes | Uint8Array) -> RecordVerdict:
    if not isinstance(image, bytes):
        return "good"
    word = image.split(b" ")[0].decode()
    known: dict[str, RecordVerdict] = {
        "good": "good",
        "review": "review",
        "anomalous": "anomalous",
        "not_inspectable": "not_inspectable",
    }
    return known.get(word, "unreadable")


def wait_until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.005)
