"""One record of many stations: each copies its journal to a shared database, when that can be reached."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fewshot_ad.line.journal.database import JournalError, journal_errors, open_database, shown, url_of
from fewshot_ad.line.journal.journal import Journal
from fewshot_ad.line.journal.tables import corrections, events, records
from fewshot_ad.line.sinks.sink import FIRST_PAUSE_S, LONGEST_PAUSE_S, SinkState

logger = logging.getLogger(__name__)

# What is copied; records before what refers to them.
TABLES = (records, corrections, events)
# Rows of one transaction.
BATCH = 500


class Replicator:
    """Copies a journal to a database, on a thread of its own, for as long as the station runs.

    Rows are known by their ids: what was copied before a crash is not copied twice, and after days without the database
    it goes on where it was.

    Args:
        journal: What is copied.
        place: URL of the database, or the file of another journal.
        every_s: Seconds between two looks at what is new.
    """

    def __init__(self, journal: Journal, place: str, every_s: float) -> None:
        self._journal, self._place, self._every = journal, place, every_s
        self._stop = threading.Event()
        self._error, self._connected = "", False
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._run, name="fewshot-ad-replica", daemon=True)

    @property
    def state(self) -> SinkState:
        """How it is doing now."""
        try:
            left = waiting(self._journal, self._place)
        except JournalError as error:
            return SinkState("replica", False, 0, str(error))
        return SinkState("replica", self._connected, left, self._error)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, wait_s: float = 5.0) -> None:
        """End, with the rows that are under way; the rest is copied after the next start."""
        self._deadline = time.monotonic() + wait_s
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2 * wait_s)

    def _run(self) -> None:
        pause, target = FIRST_PAUSE_S, None
        while True:
            last = self._stop.is_set()
            try:
                if target is None:
                    target = open_database(self._place)
                # The last time, what has come in meanwhile, as far as the time allows.
                over = self._stop.is_set if not last else lambda: time.monotonic() > self._deadline
                replicate(self._journal, target, stop=over)
                self._connected, self._error, pause = True, "", FIRST_PAUSE_S
            except Exception as error:  # whatever a driver raises: it is tried again, and health says it
                if not self._error:
                    logger.warning("replica: %s", error)
                self._connected, self._error = False, str(error)
            if last:
                break
            self._stop.wait(self._every if self._connected else pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        if target is not None:
            target.dispose()


def replicate(journal: Journal, target: sa.Engine, stop: Callable[[], bool] | None = None) -> int:
    """Copy what a station has written since the last time.

    Args:
        journal: What is copied.
        target: Where to, see `open_database`.
        stop: Asked between transactions; None copies all.

    Returns:
        How many rows.

    Raises:
        JournalError: One of the two cannot be reached, or another station of the same name writes there, too.
    """
    copied = 0
    for table in TABLES:
        reader = _reader(target.url, table)
        position = journal.position(reader)
        while stop is None or not stop():
            rows = _rows_after(journal, table, position)
            if not rows:
                break
            _insert(target, table, rows, journal.station)
            position = rows[-1]["seq"]
            journal.set_position(reader, position)
            copied += len(rows)
    return copied


def waiting(journal: Journal, place: str) -> int:
    """How many records have not been copied to a database yet, see `open_database`."""
    return journal.count_after(journal.position(_reader(url_of(place), records)))


def _reader(url: sa.URL, table: sa.Table) -> str:
    """By what the journal remembers how far a table was copied; another database begins anew."""
    digest = hashlib.sha256(shown(url).encode()).hexdigest()
    return f"replica:{digest[:12]}:{table.name}"


def _rows_after(journal: Journal, table: sa.Table, seq: int) -> list[dict[str, Any]]:
    mine = (table.c.station == journal.station) & (table.c.seq > seq)
    query = sa.select(table).where(mine).order_by(table.c.seq).limit(BATCH)
    with journal_errors(), journal.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def _insert(target: sa.Engine, table: sa.Table, rows: list[dict[str, Any]], station: str) -> None:
    # The number is the target's own.
    values = [{name: value for name, value in row.items() if name != "seq"} for row in rows]
    ids = [row["id"] for row in rows]
    insert = postgresql.insert if target.dialect.name == "postgresql" else sqlite.insert
    with journal_errors(shown(target.url)), target.begin() as connection:
        connection.execute(insert(table).on_conflict_do_nothing(), values)
        there = connection.execute(sa.select(sa.func.count()).where(table.c.id.in_(ids))).scalar_one()
        if there < len(ids):
            raise JournalError(
                f"{shown(target.url)}: expected one station of the name {station!r}, got two: {len(ids) - there} "
                "inspections have keys that another one has used. Give each station a name of its own."
            )
