"""What one inspection leaves behind: the entry of the journal, the answer of the station, and what is published."""

from __future__ import annotations

import datetime
import os
import secrets
import threading
from typing import Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field

RecordVerdict: TypeAlias = Literal["good", "review", "anomalous", "not_inspectable", "unreadable"]
RECORD_VERDICTS: tuple[RecordVerdict, ...] = get_args(RecordVerdict)


class Record(BaseModel):
    """One inspection, with whatever verdict.

    Attributes:
        schema_: `fewshot-ad/inspection-record/1`.
        id: 32 hexadecimal digits, unique in the world, and sorted by the time at which they were given.
        station: Name of the station.
        time: When the image arrived, with UTC.
        product: Name of the product in the catalog.
        artifact: SHA-256 of the product's file that judged; empty where none did.
        source: Where the image came from: `http`, `folder:NAME`, `camera:NAME`.
        name: File name, or what the sender calls the image.
        key: By which the sender asks for the same verdict again, see `Station.inspect`; None for none.
        verdict: As `Inspection.verdict`, or `unreadable` for what is no image.
        reason: Why it cannot be judged or read; empty if it can.
        score: As `Inspection.score`; None where there is none.
        threshold: Likewise.
        severity: Likewise: score / threshold.
        milliseconds: From the arrival to the verdict, with waiting, and keeping its pictures where they are kept.
        image: Name of the stored image in the folder of pictures; None where none was kept.
        overlay: Name of the stored overlay; None likewise.
        inspection: `Inspection.as_dict()`, whose schema is docs/reference/schemas/inspect.json; None for what is no
            image.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal["fewshot-ad/inspection-record/1"] = Field(default="fewshot-ad/inspection-record/1", alias="schema")
    id: str
    station: str
    time: datetime.datetime
    product: str
    artifact: str = ""
    source: str
    name: str = ""
    key: str | None = None
    verdict: RecordVerdict
    reason: str = ""
    score: float | None = None
    threshold: float | None = None
    severity: float | None = None
    milliseconds: float
    image: str | None = None
    overlay: str | None = None
    inspection: dict[str, Any] | None = None

    @property
    def is_good(self) -> bool:
        """Whether the part may pass: only what was judged and found good."""
        return self.verdict == "good"

    def to_json(self) -> str:
        """The record as one line of JSON, docs/reference/schemas/inspection-record.json."""
        return self.model_dump_json(by_alias=True)

    def as_dict(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        return self.model_dump(mode="json", by_alias=True)


_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A UUID of version 7, 32 hexadecimal digits: milliseconds since 1970, then random bits.

    Those of one process are sorted in the order in which they were given, also where the clock is set back.

    Source: RFC 9562, section 5.7.
    """
    global _last
    with _lock:
        # A counter in the 12 bits below the milliseconds keeps the order within one, section 6.2.
        now = int(utc_now().timestamp() * 1000) << 12
        _last = max(now, _last + 1)
        milliseconds, counter = _last >> 12, _last & 0xFFF
    high = (milliseconds & (1 << 48) - 1) << 16 | 0x7 << 12 | counter
    low = 0b10 << 62 | secrets.randbits(62)
    return f"{high:016x}{low:016x}"


def utc_now() -> datetime.datetime:
    """The time, with its zone, to a millisecond."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _renew_in_child() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)
