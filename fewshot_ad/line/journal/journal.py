"""The journal of a station: every inspection, what people said of it, and what went wrong, in a database."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from fewshot_ad.line.journal.database import InUseError, JournalError, file_of, journal_errors, open_database
from fewshot_ad.line.journal.entries import Correction, CorrectionAction, EventKind, Lost, Picture
from fewshot_ad.line.journal.reading import JournalReader
from fewshot_ad.line.journal.tables import corrections, events, in_flight, pictures, positions, records
from fewshot_ad.line.record import Record, new_id, utc_now
from fewshot_ad.storage.locks import close_locked, lock_descriptor

logger = logging.getLogger(__name__)

# How a file of SQLite begins.
_SQLITE = b"SQLite format 3\0"


class Journal(JournalReader):
    """A journal that is open, to write to as well. It may be used on several threads.

    What `add` has returned from is on disk, and survives a power cut if the disk does.

    Args:
        engine: The database, see `open_database`.
        station: Name of the station that writes.
    """

    def __init__(self, engine: sa.Engine, station: str) -> None:
        super().__init__(engine, station)
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._writing = threading.Lock()
        self._writer: sa.Connection | None = None
        self._listeners: list[Callable[[], object]] = []
        self._locked: int | None = None
        self._closed = False
        self._file = Path(engine.url.database) if self._is_sqlite and engine.url.database else None
        # Which file it is, so that one that was removed or replaced under this process is not written in vain.
        self._identity = _identity(self._file)

    @classmethod
    def open(cls, place: str | os.PathLike[str], station: str = "station", *, exclusive: bool = False) -> Journal:
        """Open a journal; an empty one is made if there is none.

        Args:
            place: Of its SQLite file, or the URL of a database.
            station: Name of the station that writes.
            exclusive: Whether it is an error if another station has the file open so.

        Raises:
            JournalError: It cannot be opened, or another station writes it.
        """
        place = os.fspath(place)
        if "://" not in place:
            _refuse_other_files(Path(place))
        file = file_of(place)
        locked = _locked(Path(f"{file}.lock")) if exclusive and file is not None else None
        try:
            journal = cls(open_database(place), station)
        except BaseException:
            if locked is not None:
                close_locked(locked)
            raise
        journal._locked = locked
        return journal

    def close(self) -> None:
        """Close it; it may not be used any more."""
        with self._writing:
            self._closed = True
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            self._engine.dispose()
            if self._locked is not None:
                close_locked(self._locked)
                self._locked = None

    # --- What the station writes ---

    def start(self, text: str) -> list[Lost]:
        """A station begins.

        Args:
            text: What is said of it.

        Returns:
            What was being inspected when the station ended the last time, if it was killed: it has no verdict.

        Raises:
            JournalError: It cannot be written.
        """
        with self._write() as connection:
            mine = in_flight.c.station == self.station
            left = [
                Lost(*tuple(row)) for row in connection.execute(sa.select(*_LOST).where(mine).order_by(in_flight.c.id))
            ]
            last = connection.execute(
                sa.select(events.c.kind)
                .where(events.c.station == self.station, events.c.kind.in_(["start", "stop"]))
                .order_by(events.c.seq.desc())
                .limit(1)
            ).scalar()
            if last == "start":
                self._insert_event(connection, "trouble", "the station had ended without a stop: killed, or no power")
            for one in left:
                about = f"{one.name or 'an image'} from {one.source}, {one.time.isoformat(timespec='milliseconds')}"
                self._insert_event(connection, "lost", f"no verdict on {about}, id {one.id}: the station ended before")
            connection.execute(sa.delete(in_flight).where(mine))
            self._insert_event(connection, "start", text)
        return left

    def begin(self, lost: Lost) -> None:
        """An inspection begins; if nothing more is heard of it, it was lost.

        Raises:
            JournalError: It cannot be written.
        """
        for last in (False, True):
            try:
                # A power cut may take it back, a killed process does not: it costs no wait for the disk.
                with self._write(durable=False) as connection:
                    connection.execute(sa.insert(in_flight).values(station=self.station, **lost._asdict()))
                return
            except JournalError as error:
                # A connection that a server has cut since; nothing has happened yet, so a new one is taken.
                if last or not getattr(error.__cause__, "connection_invalidated", False):
                    raise

    def abandon(self, record_id: str) -> None:
        """An inspection that had begun will have no record, and whoever asked for it knows.

        Raises:
            JournalError: It cannot be written.
        """
        with self._write(durable=False) as connection:
            connection.execute(sa.delete(in_flight).where(in_flight.c.id == record_id))

    def add(self, record: Record, kept: Iterable[Picture] = ()) -> int:
        """An inspection has its verdict.

        Args:
            record: It.
            kept: Pictures of it that are on disk.

        Returns:
            Its number in this journal.

        Raises:
            JournalError: It cannot be written; then nothing of it is.
        """
        values = record.model_dump(exclude={"schema_", "inspection"})
        values["inspection"] = None if record.inspection is None else json.dumps(record.inspection)
        with self._write() as connection:
            seq = connection.execute(sa.insert(records).values(**values).returning(records.c.seq)).scalar_one()
            connection.execute(sa.delete(in_flight).where(in_flight.c.id == record.id))
            rows = [
                {
                    "name": picture.name,
                    "station": self.station,
                    "record": record.id,
                    "bytes": picture.nbytes,
                    "good": record.is_good,
                }
                for picture in kept
            ]
            if rows:
                connection.execute(sa.insert(pictures), rows)
        for tell in self._listeners:
            tell()
        return int(seq)

    def correct(
        self,
        product: str,
        action: CorrectionAction,
        artifact: str,
        *,
        record: str | None = None,
        undoes: str | None = None,
        notes: str = "",
    ) -> Correction:
        """Somebody has said something of a verdict.

        Args:
            product: Name of the product.
            action: What was said.
            artifact: SHA-256 of the product's file afterwards.
            record: The inspection; None where it concerns none.
            undoes: The correction that is taken back; None for none.
            notes: What was noticed.

        Raises:
            JournalError: It cannot be written.
        """
        values = {
            "id": new_id(),
            "station": self.station,
            "time": utc_now(),
            "product": product,
            "record": record,
            "action": action,
            "artifact": artifact,
            "undoes": undoes,
            "notes": notes,
        }
        with self._write() as connection:
            seq = connection.execute(sa.insert(corrections).values(**values).returning(corrections.c.seq)).scalar_one()
        return Correction(seq, **values)  # type: ignore[arg-type]

    def note(self, kind: EventKind, text: str) -> None:
        """Something has happened to the station.

        Raises:
            JournalError: It cannot be written.
        """
        with self._write() as connection:
            self._insert_event(connection, kind, text)

    def set_position(self, reader: str, seq: int) -> None:
        """A reader has got as far as this.

        Raises:
            JournalError: It cannot be written.
        """
        values = {"station": self.station, "reader": reader, "seq": seq}
        with self._write(durable=False) as connection:
            where = (positions.c.station == self.station) & (positions.c.reader == reader)
            if not connection.execute(sa.update(positions).where(where).values(seq=seq)).rowcount:
                connection.execute(sa.insert(positions).values(**values))

    def forget_pictures(self, names: Sequence[str]) -> None:
        """Pictures are not on disk any more.

        Raises:
            JournalError: It cannot be written.
        """
        with self._write(durable=False) as connection:
            connection.execute(sa.delete(pictures).where(pictures.c.name.in_(list(names))))

    def check_place(self) -> None:
        """Make sure that the file that was opened is still the one at its place.

        Raises:
            JournalError: It was removed or replaced.
        """
        if self._file is not None and _identity(self._file) != self._identity:
            raise JournalError(
                f"{self._file}: expected the journal that was opened, but its file was removed or replaced since. Put "
                "it back, or restart the station to begin a new one."
            )

    def on_new(self, tell: Callable[[], object]) -> None:
        """Have a function called whenever a record was added here; it must not wait."""
        self._listeners.append(tell)

    def backup(self, path: Path) -> None:
        """Copy the journal to a SQLite file while it is in use.

        Raises:
            JournalError: It cannot be copied, or it is no SQLite file: PostgreSQL brings `pg_dump`.
        """
        if not self._is_sqlite:
            raise JournalError(f"{self.place}: expected a journal in a file, got a database server. Use its pg_dump.")
        try:
            source = sqlite3.connect(str(self._engine.url.database))
            target = sqlite3.connect(path)
            try:
                source.backup(target)
            finally:
                target.close()
                source.close()
        except sqlite3.Error as error:
            raise JournalError(f"{path}: the journal cannot be copied there ({error}). Free some space.") from error

    # --- Below ---

    @contextmanager
    def _write(self, durable: bool = True) -> Iterator[sa.Connection]:
        """A transaction; one at a time, on a connection that stays open."""
        with self._writing, journal_errors():
            if self._closed:
                # Another station may write it already.
                raise JournalError("expected a journal that is open, got one that was closed. Open it again.")
            self.check_place()
            if self._writer is None:
                self._writer = self._engine.connect()
            connection = self._writer
            try:
                if self._is_sqlite:
                    driver = connection.connection.driver_connection
                    assert driver is not None  # noqa: S101 - it was opened above
                    try:
                        driver.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    except sqlite3.Error as error:
                        raise JournalError(f"the journal cannot be written ({error}).") from error
                with connection.begin():
                    yield connection
            except BaseException:
                # One that has failed may be broken: the next write takes a new one.
                self._writer = None
                connection.invalidate()
                connection.close()
                raise

    def _insert_event(self, connection: sa.Connection, kind: EventKind, text: str) -> None:
        values = {"id": new_id(), "station": self.station, "time": utc_now(), "kind": kind, "text": text}
        connection.execute(sa.insert(events).values(**values))


_LOST = (in_flight.c.id, in_flight.c.time, in_flight.c.product, in_flight.c.source, in_flight.c.name)


def _identity(file: Path | None) -> tuple[int, int] | None:
    try:
        status = None if file is None else file.stat()
    except OSError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)


def _refuse_other_files(path: Path) -> None:
    """Leave no lock beside what is no journal."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE))
    except OSError:
        # There is none yet, or the database says why it cannot be read.
        return
    if start and start != _SQLITE:
        raise JournalError(f"{path}: expected a journal, got another file. Name another one.")


def _locked(path: Path) -> int:
    """A lock that ends with this process."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise JournalError(f"{path}: cannot be written ({error.strerror}). Check the folder of the journal.") from error
    try:
        lock_descriptor(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        raise InUseError(
            f"expected a journal that no other station writes, got one that is in use ({path}). End that station, or "
            "give this one a journal of its own."
        ) from None
    except OSError:
        logger.warning("%s: this file system knows no locks; make sure that only one station writes the journal", path)
    return descriptor
