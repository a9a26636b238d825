"""A station: images in, verdicts out and in the journal, whoever asks."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fewshot_ad.catalog import Catalog
from fewshot_ad.catalog.catalog import Judged
from fewshot_ad.errors import ImageError, NotEnrolledError, StationError
from fewshot_ad.failures import explanation
from fewshot_ad.images.limits import at_most_pixels
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.line.journal import DiskFullError, Journal, JournalError, Lost, Picture, PictureFolder
from fewshot_ad.line.judge import LoadJudge
from fewshot_ad.line.record import Record, RecordVerdict, new_id, utc_now
from fewshot_ad.line.settings import StationSettings
from fewshot_ad.line.sources.source import BusyError
from fewshot_ad.line.station.baselines import load_baselines
from fewshot_ad.line.station.sent import RecentImages, Sent, encoded, overlay_jpeg
from fewshot_ad.line.station.watching import LineWatch

logger = logging.getLogger(__name__)

# How long a second look waits for others, in seconds.
LOOK_S = 5.0
# Latencies that health tells the median of.
TIMED = 512


class KeyReusedError(StationError):
    """A key that was used for something else before."""


class UnrecordedError(JournalError):
    """A verdict that could not be written to the journal.

    Attributes:
        record: It.
    """

    def __init__(self, record: Record, cause: JournalError) -> None:
        super().__init__(f"the verdict was {record.verdict}, but it could not be recorded: {cause}")
        self.record = record


class Station:
    """Inspects images with the products of a catalog, and keeps a journal. It may be used on several threads.

    Args:
        settings: What it is told, see `settings.read_settings`.
        load_baseline: Reads one of the fitted baselines that the settings name; None if they name none.

    Attributes:
        settings: As given.
        catalog: Its products.
        baselines: Its fitted baselines, by the names of their products.
        journal: Its journal.
        pictures: The pictures of the journal.
        watch: Whether its lines drift.
        lost: What had no verdict yet when the station ended the last time.
        started: When it was started.
        trouble: Why verdicts are not recorded; empty if they are.
        latest: The latest record since the start; None for none.

    Raises:
        StationError: The journal or the folder of pictures cannot be used, or two judge a product of one name.
        FewshotADError: A baseline cannot be read.
        NotEnrolledError: There is no folder at the place of the catalog.
    """

    def __init__(self, settings: StationSettings, load_baseline: LoadJudge | None = None) -> None:
        self.settings = settings
        self.catalog = Catalog(settings.catalog, memory_mb=settings.memory_mb, threads=settings.threads)
        self.baselines = load_baselines(settings.baselines, load_baseline, self.catalog)
        self.journal = Journal.open(settings.journal, settings.station, exclusive=True)
        try:
            quota = int(settings.pictures.quota_mb * 1e6)
            self.pictures = PictureFolder(Path(settings.pictures.folder), self.journal, quota)
            self.lost = self.journal.start(f"{len(self.products)} product(s) in {self.catalog.folder.name}")
        except BaseException:
            self.journal.close()
            raise
        self.started = utc_now()
        self.trouble = ""
        # One at a time: the encoder takes all cores, and two at once would both be late.
        self._working = threading.Lock()
        self._looking = threading.Lock()
        self._slots = threading.BoundedSemaphore(settings.limits.queue)
        self._waiting = 0
        self._recent = RecentImages()
        self.watch = LineWatch(self.catalog)
        self._latencies: deque[float] = deque(maxlen=TIMED)
        self._counts: Counter[RecordVerdict] = Counter()
        self.latest: Record | None = None
        self._listeners: list[Callable[[Record], object]] = []
        self._state = threading.Lock()
        self._keys: set[str] = set()
        self._keys_free = threading.Condition(self._state)
        self._closed = False

    def close(self, wait_s: float = 10.0) -> None:
        """End: what is being inspected gets its verdict, nothing else begins.

        Args:
            wait_s: How long to wait for that. What takes longer has no verdict, and the next start says so.
        """
        with self._state:
            if self._closed:
                return
            self._closed = True
        until = time.monotonic() + wait_s
        while self._waiting and time.monotonic() < until:
            time.sleep(0.01)
        if not self._waiting:
            with contextlib.suppress(JournalError):
                self.journal.note("stop", "stopped")
        self.journal.close()

    # --- Inspection ---

    def inspect(
        self, image: Sent, *, product: str | None = None, source: str, name: str = "", key: str | None = None
    ) -> Record:
        """Inspect an image; its verdict is in the journal when this returns.

        Args:
            image: An encoded image, or (H, W, 3) uint8 RGB.
            product: Name of the product; None finds out which of the catalog's the image shows.
            source: Where it comes from, see `Record.source`.
            name: What the sender calls it.
            key: By which the sender asks for the same verdict again, if the answer got lost on the way: a second image
                with it is not inspected. None for none.

        Returns:
            The record; of what is no image too, with the verdict `unreadable`.

        Raises:
            BusyError: Too many images wait, or this one has waited too long; nothing is recorded.
            KeyReusedError: The key was used for another product.
            NotEnrolledError: There is no such product; nothing is recorded.
            ArtifactError: The product's file is damaged; nothing is recorded.
            UnrecordedError: The journal takes no entry; the error has the verdict.
            JournalError: It cannot be read or written; there is no verdict.
        """
        with self.slot():
            return self.inspect_in_slot(image, product=product, source=source, name=name, key=key)

    def inspect_in_slot(
        self, image: Sent, *, product: str | None = None, source: str, name: str = "", key: str | None = None
    ) -> Record:
        """As `inspect`, for who holds a `slot` already."""
        if self._closed:
            raise BusyError("expected a station that runs, got one that stops. Send it again once it is back.")
        # Before anything is written; it also refuses names that lead out of the catalog.
        if product is not None and product not in self.baselines and not self.catalog.path(product).is_file():
            raise NotEnrolledError(f"expected one of the {len(self.products)} products, got {product!r}.")
        if key is None:
            return self._inspect(image, product, source, name, None)
        # The same request a second time, while the first is under way: both get one verdict.
        with self._alone_with(key):
            recorded = self.journal.by_key(key)
            if recorded is None:
                return self._inspect(image, product, source, name, key)
            if recorded.product and product not in (None, recorded.product):
                raise KeyReusedError(
                    f"expected a new key, got {key!r}, by which {recorded.product} was inspected at "
                    f"{recorded.time.isoformat()}. A key is used once."
                )
            return recorded

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A place in the queue, taken before an image is even received.

        Raises:
            BusyError: There is none.
        """
        if not self._slots.acquire(blocking=False):
            raise BusyError(
                f"expected at most {self.settings.limits.queue} images that wait, got one more. Send it again later."
            )
        with self._state:
            self._waiting += 1
        try:
            yield
        finally:
            with self._state:
                self._waiting -= 1
            self._slots.release()

    def on_record(self, tell: Callable[[Record], object]) -> None:
        """Have a function called with every record, once it is in the journal; it must not wait."""
        self._listeners.append(tell)

    @property
    def products(self) -> tuple[str, ...]:
        """Names of all products that it can judge now, sorted.

        Raises:
            NotEnrolledError: The folder of the catalog cannot be read.
        """
        return tuple(sorted({*self.catalog.names, *self.baselines}))

    @property
    def waiting(self) -> int:
        """Images that wait or are inspected."""
        return self._waiting

    def image_of(self, record: Record) -> Sent | None:
        """The image of an inspection, from memory or disk; None where it was not kept.

        Raises:
            JournalError: It cannot be read.
        """
        recent = self._recent.get(record.id)
        if recent is not None:
            return recent
        return None if record.image is None else self.pictures.read(record.image)

    def look_again(self, record: Record) -> Inspection | None:
        """Inspect the image of a record once more, with the product as it is now, for pictures of it.

        Returns:
            The inspection; None where its image was not kept, or it is none.

        Raises:
            BusyError: Others look, or inspect, for too long.
            NotEnrolledError: The product is gone.
            ArtifactError: It is damaged.
        """
        image = self.image_of(record)
        if image is None or record.verdict == "unreadable" or not record.product:
            return None
        # One at a time, and in its turn: a look must not keep the line waiting.
        if not self._looking.acquire(timeout=LOOK_S):
            raise BusyError("expected a picture that is asked for now and then, got many at once. Ask again.")
        try:
            with self._turn():
                return self._judged(record.product, image).inspection
        finally:
            self._looking.release()

    def counts(self) -> Counter[RecordVerdict]:
        """Inspections since the start, by verdict."""
        with self._state:
            return Counter(self._counts)

    def latencies(self) -> list[float]:
        """Milliseconds from arrival to verdict of the latest inspections."""
        with self._state:
            return list(self._latencies)

    # --- Below ---

    @contextmanager
    def _alone_with(self, key: str) -> Iterator[None]:
        """Keep others with the same key waiting.

        Raises:
            BusyError: Another one takes too long.
        """
        seconds = self.settings.limits.inspection_s
        with self._state:
            if not self._keys_free.wait_for(lambda: key not in self._keys, seconds):
                raise BusyError(f"expected a verdict on {key!r} by now, got none. Send it again.")
            self._keys.add(key)
        try:
            yield
        finally:
            with self._state:
                self._keys.remove(key)
                self._keys_free.notify_all()

    def _inspect(self, image: Sent, product: str | None, source: str, name: str, key: str | None) -> Record:
        began = time.perf_counter()
        lost = Lost(new_id(), utc_now(), product or "", source, name)
        # If not even that can be written, the part is judged all the same, and the answer says what became of it.
        with contextlib.suppress(JournalError):
            self._written(lambda: self.journal.begin(lost))
        try:
            with self._turn():
                judged = self._judge(image, product)
        except BaseException:
            # Whoever asked is told; nothing is lost.
            with contextlib.suppress(JournalError):
                self.journal.abandon(lost.id)
            raise
        kept, overlay = self._kept_pictures(lost.id, image, judged)
        inspection = judged.inspection
        record = Record(
            id=lost.id,
            station=self.settings.station,
            time=lost.time,
            product=judged.product,
            artifact=judged.artifact,
            source=source,
            name=name,
            key=key,
            verdict=judged.verdict,
            reason=judged.reason,
            score=None if inspection is None else inspection.score,
            threshold=None if inspection is None else inspection.threshold,
            severity=None if inspection is None else inspection.severity,
            milliseconds=round((time.perf_counter() - began) * 1e3, 3),
            image=kept.name if kept else None,
            overlay=overlay.name if overlay else None,
            inspection=None if inspection is None else {**inspection.as_dict(), "name": name},
        )
        pictures = [picture for picture in (kept, overlay) if picture is not None]
        self._recent.keep(record.id, image)
        try:
            self._written(lambda: self.journal.add(record, pictures))
        except JournalError as error:
            self.pictures.discard(pictures)
            self.trouble = f"a verdict could not be recorded: {error}"
            raise UnrecordedError(record, error) from error
        self.trouble = ""
        with self._state:
            self._latencies.append(record.milliseconds)
            self._counts[record.verdict] += 1
            self.latest = record
        for tell in self._listeners:
            tell(record)
        return record

    def _written(self, write: Callable[[], object]) -> None:
        """Write to the journal; on a full disk, pictures make room for it."""
        try:
            write()
        except DiskFullError:
            if not self.pictures.free(0):
                raise
            write()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """This thread's turn to inspect.

        Raises:
            BusyError: It does not come in time, or the station ends.
        """
        seconds = self.settings.limits.inspection_s
        if not self._working.acquire(timeout=seconds):
            raise BusyError(f"expected an inspection to begin within {seconds:g} s, it waited longer. Send it again.")
        try:
            if self._closed:
                raise BusyError("expected a station that runs, got one that stops. Send it again once it is back.")
            yield
        finally:
            self._working.release()

    def _judge(self, image: Sent, product: str | None) -> _Judgement:
        try:
            with at_most_pixels(int(self.settings.limits.megapixels * 1e6)):
                if product is None:
                    product, reason = self._product_on(image)
                    if product is None:
                        return _Judgement("", "", "not_inspectable", reason, None)
                judged = self._judged(product, image)
        except ImageError as error:
            return _Judgement(product or "", "", "unreadable", explanation(error), None)
        inspection = judged.inspection
        if product not in self.baselines:
            self.watch.see(product, judged.artifact, inspection)
        return _Judgement(product, judged.artifact, inspection.verdict, inspection.reason, inspection)

    def _judged(self, product: str, image: Sent) -> Judged:
        baseline = self.baselines.get(product)
        if baseline is None:
            return self.catalog.judge(product, image)
        return Judged(baseline.judge.inspect(image), baseline.judge.artifact)

    def _product_on(self, image: Sent) -> tuple[str | None, str]:
        """The product that an image shows; None and the reason where it is none of the catalog's."""
        names = self.products
        if not names:
            raise NotEnrolledError("expected a product to inspect with, got none. Teach one first.")
        if len(names) == 1:
            return names[0], ""
        route = self.catalog.route(image)
        unseen = f". What a baseline judges has to be named: {', '.join(self.baselines)}" if self.baselines else ""
        if damaged := self.catalog.damaged:
            # It may be the one that it shows: the others must not pass it in its place.
            return None, f"it may show {' or '.join(damaged)}, whose file is damaged. Restore it, or name the product."
        if route.name is not None or not route.candidates:
            return route.name, f"it shows none of the products{unseen}"
        best = route.candidates[0]
        return None, f"it shows none of {len(self.catalog)} products; closest is {best.name}: {best.reason}{unseen}"

    def _kept_pictures(self, record_id: str, image: Sent, judged: _Judgement) -> tuple[Picture | None, Picture | None]:
        """Image and overlay on disk, as the settings say."""
        keep = self.settings.pictures.keep
        if keep == "none" or (keep == "rejects" and judged.verdict == "good"):
            return None, None
        kept = overlay = None
        try:
            kept = self.pictures.store(record_id, encoded(image))
            if judged.inspection is not None and judged.verdict != "good":
                overlay = self.pictures.store(record_id, overlay_jpeg(judged.inspection), "overlay")
        except Exception as error:  # a verdict must not wait for its picture
            self.pictures.trouble = f"no picture is kept: {error}"
            logger.warning("%s", self.pictures.trouble)
        return kept, overlay


class _Judgement(NamedTuple):
    """What was found out about an image.

    Attributes:
        product: Name of the product; empty for none.
        artifact: SHA-256 of its file; empty where it did not judge.
        verdict: See `Record.verdict`.
        reason: Why there is no verdict on the part; empty if there is.
        inspection: None where there is none.
    """

    product: str
    artifact: str
    verdict: RecordVerdict
    reason: str
    inspection: Inspection | None
