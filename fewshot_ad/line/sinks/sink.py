"""What verdicts are published to, and how every one gets there: once it is in the journal, until it is acknowledged."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from typing import Protocol

from fewshot_ad.errors import StationError
from fewshot_ad.line.journal.journal import Journal
from fewshot_ad.line.record import Record

logger = logging.getLogger(__name__)

# Seconds between two tries of a sink that is down: the first, and at most.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
# Records that are read from the journal at a time.
BATCH = 100


class SinkError(StationError):
    """A sink cannot take a record now; it is tried again."""


class RefusedError(SinkError):
    """A sink will never take this record; it is passed over, and the journal says so."""


class Sink(Protocol):
    """What records are published to.

    Attributes:
        name: By which the journal remembers how far it has got; unique in a station.
        replays: Whether it is told what happened while it was down; else it only hears of what is new, as a signal lamp
            does.
    """

    name: str
    replays: bool

    def open(self) -> None:
        """Connect, or listen.

        Raises:
            SinkError: It cannot now.
        """
        ...

    def send(self, record: Record) -> None:
        """Publish a record, and wait until the other side has it.

        Raises:
            SinkError: It did not take it; it is opened and tried again.
            RefusedError: It never will.
        """
        ...

    def close(self) -> None:
        """End the connection; may be called whatever happened before."""
        ...


@dataclass(frozen=True)
class SinkState:
    """How a sink is doing.

    Attributes:
        name: Its name.
        connected: Whether it took the last record, or is open and waits for one.
        waiting: Records that it has not taken yet.
        error: Why it does not take them; empty if it does.
    """

    name: str
    connected: bool
    waiting: int
    error: str


class Publisher:
    """Brings the records of a journal to a sink, in order, on a thread of its own.

    How far it has got is kept in the journal, so that a restart goes on there. A record counts as sent once the sink
    has acknowledged it: after a crash between the two it is sent a second time, with the same `id`.

    Args:
        sink: Where to.
        journal: Where from.
    """

    def __init__(self, sink: Sink, journal: Journal) -> None:
        self._sink, self._journal = sink, journal
        self._stop, self._wake = threading.Event(), threading.Event()
        self._draining = False
        self._error, self._open = "", False
        self._position = journal.position(sink.name, from_now=not sink.replays)
        self._thread = threading.Thread(target=self._run, name=f"fewshot-ad-{sink.name}", daemon=True)

    @property
    def state(self) -> SinkState:
        """How it is doing now."""
        try:
            waiting = self._journal.count_after(self._position)
        except StationError as error:
            return SinkState(self._sink.name, False, 0, str(error))
        return SinkState(self._sink.name, self._open and not self._error, waiting, self._error)

    def start(self) -> None:
        """Begin."""
        self._journal.on_new(self._wake.set)
        self._thread.start()

    def stop(self, wait_s: float = 5.0) -> None:
        """End, after what waits has been sent, as far as the time allows; the rest is sent after the next start."""
        self._draining = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stop.is_set():
            try:
                if not self._open:
                    self._sink.open()
                    self._open = True
                    if not self._sink.replays:
                        # What happened while it was down is over: a lamp must not show a part that is gone.
                        self._position = self._journal.position(self._sink.name, from_now=True)
                self._send_all()
            except Exception as error:  # whatever a client library raises: the line goes on, and health says it
                if not self._error:
                    logger.warning("%s: %s", self._sink.name, error)
                self._error = str(error) or type(error).__name__
                self._close()
                if self._draining:
                    return
                # Spread out, so that a plant's stations do not all come back at once.
                self._stop.wait(pause * random.uniform(0.7, 1.3))  # noqa: S311
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            if self._error:
                logger.info("%s: takes records again", self._sink.name)
            pause, self._error = FIRST_PAUSE_S, ""
            if self._draining:
                break
            self._wake.wait()
            self._wake.clear()
        self._close()

    def _send_all(self) -> None:
        while not self._stop.is_set():
            entries = self._journal.records_after(self._position, BATCH)
            if not entries:
                return
            for seq, record in entries:
                if self._stop.is_set():
                    return
                try:
                    self._sink.send(record)
                except RefusedError as error:
                    self._journal.note("refused", f"{self._sink.name}: record {record.id} was refused: {error}")
                    logger.error("%s: record %s was refused: %s", self._sink.name, record.id, error)
                if self._sink.replays:
                    self._journal.set_position(self._sink.name, seq)
                self._position = seq
                self._error = ""

    def _close(self) -> None:
        self._open = False
        try:
            self._sink.close()
        except Exception as error:  # it is gone either way
            logger.debug("%s: %s", self._sink.name, error)
