"""What a journal says: records by id, by key, by what they are; events, corrections, how far readers have got."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from fewshot_ad.line.journal.database import journal_errors, shown
from fewshot_ad.line.journal.entries import Correction, Event, EventKind, Picture, Selection
from fewshot_ad.line.journal.tables import corrections, events, pictures, positions, records
from fewshot_ad.line.record import RECORD_VERDICTS, Record, RecordVerdict

# Records that are read at a time where all are.
PAGE = 500


class JournalReader:
    """A journal to read from. It may be used on several threads.

    Args:
        engine: The database, see `open_database`.
        station: Name of the station whose positions and pictures are meant.
    """

    def __init__(self, engine: sa.Engine, station: str) -> None:
        self._engine, self.station = engine, station

    @property
    def engine(self) -> sa.Engine:
        """The database, for queries of one's own; see docs/reference/journal.md for the tables."""
        return self._engine

    @property
    def place(self) -> str:
        """Its URL, without a password."""
        return shown(self._engine.url)

    def get(self, record_id: str) -> Record | None:
        """The inspection of an id; None for none.

        Raises:
            JournalError: It cannot be read.
        """
        return self._one(records.c.id == record_id)

    def by_key(self, key: str) -> Record | None:
        """The inspection that this station's sender gave a key; None for none.

        Raises:
            JournalError: It cannot be read.
        """
        return self._one((records.c.station == self.station) & (records.c.key == key))

    def select(self, selection: Selection, limit: int = PAGE) -> list[tuple[int, Record]]:
        """Records and their numbers, the latest first.

        Raises:
            JournalError: It cannot be read.
        """
        query = sa.select(records).where(*selection.conditions()).order_by(records.c.seq.desc()).limit(limit)
        return self._read_records(query)

    def each(self, selection: Selection) -> Iterator[Record]:
        """Records, the oldest first, however many there are.

        Raises:
            JournalError: It cannot be read.
        """
        after = 0
        while True:
            conditions = [*selection.conditions(), records.c.seq > after]
            page = self._read_records(sa.select(records).where(*conditions).order_by(records.c.seq).limit(PAGE))
            yield from (record for _, record in page)
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def counts(self, selection: Selection) -> dict[RecordVerdict, int]:
        """How many records have each verdict.

        Raises:
            JournalError: It cannot be read.
        """
        query = sa.select(records.c.verdict, sa.func.count()).where(*selection.conditions()).group_by(records.c.verdict)
        found: dict[str, int] = dict(tuple(row) for row in self._rows(query))  # type: ignore[misc]
        return {verdict: found.get(verdict, 0) for verdict in RECORD_VERDICTS}

    def corrections_of(self, record_ids: Sequence[str]) -> dict[str, Correction]:
        """The last correction of each record that has one that was not taken back.

        Raises:
            JournalError: It cannot be read.
        """
        undone = sa.select(corrections.c.undoes).where(corrections.c.undoes.is_not(None))
        wanted = corrections.c.record.in_(list(record_ids)) & corrections.c.id.not_in(undone)
        query = sa.select(corrections).where(wanted, corrections.c.action != "undo").order_by(corrections.c.seq)
        return {row.record: Correction(*tuple(row)) for row in self._rows(query)}

    def last_change(self, product: str) -> Correction | None:
        """The last `accept` or `reject` of a product that was not taken back; None for none.

        Raises:
            JournalError: It cannot be read.
        """
        undone = sa.select(corrections.c.undoes).where(corrections.c.undoes.is_not(None))
        query = (
            sa.select(corrections)
            .where(
                corrections.c.product == product,
                corrections.c.station == self.station,
                corrections.c.action.in_(["accept", "reject"]),
                corrections.c.id.not_in(undone),
            )
            .order_by(corrections.c.seq.desc())
            .limit(1)
        )
        return next((Correction(*tuple(row)) for row in self._rows(query)), None)

    def events(self, limit: int = 100, kinds: Sequence[EventKind] = ()) -> list[Event]:
        """What happened, the latest first.

        Raises:
            JournalError: It cannot be read.
        """
        columns = (events.c.seq, events.c.station, events.c.time, events.c.kind, events.c.text)
        query = sa.select(*columns).order_by(events.c.seq.desc()).limit(limit)
        if kinds:
            query = query.where(events.c.kind.in_(list(kinds)))
        return [Event(*tuple(row)) for row in self._rows(query)]

    def stations(self) -> list[str]:
        """Names of the stations that have written, sorted.

        Raises:
            JournalError: It cannot be read.
        """
        return sorted(row[0] for row in self._rows(sa.select(events.c.station).distinct()))

    def position(self, reader: str, *, from_now: bool = False) -> int:
        """How far a reader has got: the number of the last record that it needs no more.

        Args:
            reader: Its name.
            from_now: Whether it begins with what is new, wherever it was.

        Raises:
            JournalError: It cannot be read.
        """
        if from_now:
            return int(self._rows(sa.select(sa.func.coalesce(sa.func.max(records.c.seq), 0)))[0][0])
        where = (positions.c.station == self.station) & (positions.c.reader == reader)
        rows = self._rows(sa.select(positions.c.seq).where(where))
        return int(rows[0][0]) if rows else 0

    def records_after(self, seq: int, limit: int = PAGE) -> list[tuple[int, Record]]:
        """This station's records after a number, and their numbers, in order.

        Raises:
            JournalError: It cannot be read.
        """
        mine = (records.c.station == self.station) & (records.c.seq > seq)
        return self._read_records(sa.select(records).where(mine).order_by(records.c.seq).limit(limit))

    def count_after(self, seq: int) -> int:
        """How many records of this station there are after a number.

        Raises:
            JournalError: It cannot be read.
        """
        mine = (records.c.station == self.station) & (records.c.seq > seq)
        return int(self._rows(sa.select(sa.func.count()).select_from(records).where(mine))[0][0])

    def picture_bytes(self) -> int:
        """What this station's pictures take on disk.

        Raises:
            JournalError: It cannot be read.
        """
        total = sa.func.coalesce(sa.func.sum(pictures.c.bytes), 0)
        return int(self._rows(sa.select(total).where(pictures.c.station == self.station))[0][0])

    def oldest_pictures(self, limit: int) -> list[tuple[Picture, bool]]:
        """The pictures that are dropped first, and whether they are of good parts: those first, the oldest before.

        Raises:
            JournalError: It cannot be read.
        """
        query = (
            sa.select(pictures.c.name, pictures.c.bytes, pictures.c.good)
            .where(pictures.c.station == self.station)
            .order_by(pictures.c.good.desc(), pictures.c.record)
            .limit(limit)
        )
        return [(Picture(row.name, int(row.bytes)), bool(row.good)) for row in self._rows(query)]

    def _rows(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        # A SELECT is a transaction of its own.
        with journal_errors(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return connection.execute(query).all()

    def _one(self, condition: sa.ColumnElement[bool]) -> Record | None:
        found = self._read_records(sa.select(records).where(condition).limit(1))
        return found[0][1] if found else None

    def _read_records(self, query: sa.Select[Any]) -> list[tuple[int, Record]]:
        return [(int(row.seq), _record(row._mapping)) for row in self._rows(query)]


def _record(row: Mapping[Any, Any]) -> Record:
    values = dict(row)
    del values["seq"]
    if values["inspection"] is not None:
        values["inspection"] = json.loads(values["inspection"])
    return Record.model_validate(values)
