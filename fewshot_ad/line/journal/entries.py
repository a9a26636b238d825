"""What stands in a journal, and which of it is meant."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import sqlalchemy as sa

from fewshot_ad.line.journal.tables import records
from fewshot_ad.line.record import RecordVerdict

CorrectionAction: TypeAlias = Literal["accept", "reject", "confirm", "undo"]
EventKind: TypeAlias = Literal["start", "stop", "lost", "dropped", "refused", "product", "trouble"]


class Picture(NamedTuple):
    """A picture on disk.

    Attributes:
        name: In the folder of pictures.
        nbytes: Its size.
    """

    name: str
    nbytes: int


class Lost(NamedTuple):
    """An inspection that had no verdict yet when its station died.

    Attributes:
        id: It would have had.
        time: When the image arrived.
        product: As what it was inspected.
        source: Where it came from.
        name: What it was called.
    """

    id: str
    time: datetime.datetime
    product: str
    source: str
    name: str


class Event(NamedTuple):
    """Something that happened to a station.

    Attributes:
        seq: Its number in this journal.
        station: Name of the station.
        time: When.
        kind: What, in a word.
        text: What, in words.
    """

    seq: int
    station: str
    time: datetime.datetime
    kind: str
    text: str


class Correction(NamedTuple):
    """What somebody said of a verdict.

    Attributes:
        seq: Its number in this journal.
        id: 32 hexadecimal digits.
        station: Name of the station.
        time: When.
        product: Name of the product.
        record: The inspection; None where it concerns none.
        action: `accept`: the part is good; `reject`: it is defective; `confirm`: the verdict is right; `undo`.
        artifact: SHA-256 of the product's file afterwards.
        undoes: The correction that was taken back; None for none.
        notes: What was noticed.
    """

    seq: int
    id: str
    station: str
    time: datetime.datetime
    product: str
    record: str | None
    action: CorrectionAction
    artifact: str
    undoes: str | None
    notes: str


@dataclass(frozen=True)
class Selection:
    """Which records are meant; what is not given does not matter.

    Attributes:
        product: Name of the product.
        verdicts: Only these.
        since: Not before.
        until: Before.
        station: Name of the station.
        source: Where the image came from.
        before: Only records before this number in the journal, to go on from.
    """

    product: str | None = None
    verdicts: Sequence[RecordVerdict] = ()
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    station: str | None = None
    source: str | None = None
    before: int | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """The same for the database."""
        wanted: list[sa.ColumnElement[bool]] = []
        if self.product is not None:
            wanted.append(records.c.product == self.product)
        if self.verdicts:
            wanted.append(records.c.verdict.in_(list(self.verdicts)))
        if self.since is not None:
            wanted.append(records.c.time >= self.since)
        if self.until is not None:
            wanted.append(records.c.time < self.until)
        if self.station is not None:
            wanted.append(records.c.station == self.station)
        if self.source is not None:
            wanted.append(records.c.source == self.source)
        if self.before is not None:
            wanted.append(records.c.seq < self.before)
        return wanted
