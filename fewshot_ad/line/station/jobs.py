"""Long work that is asked for over HTTP: one piece at a time, with its progress."""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fewshot_ad.arrays import Progress
from fewshot_ad.failures import explanation
from fewshot_ad.line.record import new_id
from fewshot_ad.line.sources.source import BusyError

logger = logging.getLogger(__name__)

JobState: TypeAlias = Literal["waiting", "running", "done", "failed", "canceled"]
Work: TypeAlias = Callable[[Progress], dict[str, Any]]
# Pieces of work that may wait, and those whose outcome is remembered.
MAX_WAITING, REMEMBERED = 4, 50


class _CanceledError(Exception):
    """Whoever asked for it does not want it any more."""


@dataclass
class Job:
    """A piece of long work.

    Attributes:
        id: 32 hexadecimal digits.
        kind: `enroll`, `check` or `calibrate`.
        product: Name of the product.
        state: How far it is.
        stage: What it does now.
        done: Steps of that which are done.
        total: Steps of it.
        result: What came of it; None before.
        error: Why it failed; empty if it did not.
    """

    id: str
    kind: str
    product: str
    state: JobState = "waiting"
    stage: str = ""
    done: int = 0
    total: int = 0
    result: dict[str, Any] | None = None
    error: str = ""
    canceled: threading.Event = field(default_factory=threading.Event, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        names = ("id", "kind", "product", "state", "stage", "done", "total", "result", "error")
        return {name: getattr(self, name) for name in names}


class Jobs:
    """Does one piece of work after the other, on a thread of its own."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Job, Work] | None] = queue.Queue(MAX_WAITING)
        self._known: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="fewshot-ad-jobs", daemon=True)
        self._thread.start()

    def add(self, kind: str, product: str, work: Work) -> Job:
        """Have a piece of work done.

        Args:
            kind: What it is.
            product: Name of the product.
            work: Does it, with a `Progress` that it calls often, and returns plain JSON types.

        Raises:
            BusyError: Too much waits already.
        """
        job = Job(new_id(), kind, product)
        try:
            if self._stopping:
                raise queue.Full
            self._waiting.put_nowait((job, work))
        except queue.Full:
            raise BusyError(
                f"expected at most {MAX_WAITING} enrollments, checks and calibrations that wait, got one more. Ask "
                "again once one is done."
            ) from None
        with self._lock:
            self._known[job.id] = job
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return job

    def get(self, job_id: str) -> Job | None:
        """A piece of work by its id; None for none that is remembered."""
        with self._lock:
            return self._known.get(job_id)

    def all(self) -> list[Job]:
        """Those that are remembered, the latest first."""
        with self._lock:
            return list(reversed(self._known.values()))

    def cancel(self, job: Job) -> None:
        """End a piece of work at its next step; nothing of it stays."""
        job.canceled.set()

    def stop(self, wait_s: float = 10.0) -> None:
        """End, with what is under way canceled."""
        self._stopping = True
        for job in self.all():
            self.cancel(job)
        try:
            self._waiting.put(None, timeout=wait_s)
        except queue.Full:
            return
        self._thread.join(wait_s)

    def _run(self) -> None:
        while (entry := self._waiting.get()) is not None:
            self._do(*entry)
            # The images of one that is done, while this waits for the next.
            del entry

    def _do(self, job: Job, work: Work) -> None:
        def progress(stage: str, done: int, total: int) -> None:
            if job.canceled.is_set():
                raise _CanceledError
            job.stage, job.done, job.total = stage, done, total

        job.state = "running"
        try:
            progress("begin", 0, 1)
            job.result = work(progress)
            job.state = "done"
        except _CanceledError:
            job.state = "canceled"
        except Exception as error:  # it is told to who asked; the station goes on
            logger.warning("%s of %s failed: %s", job.kind, job.product, error)
            job.error = explanation(error)
            job.state = "failed"
