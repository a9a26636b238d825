"""A station that runs: what its settings name is opened, served, and closed in the right order."""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from fewshot_ad.catalog import Catalog
from fewshot_ad.errors import FewshotADError, StationError
from fewshot_ad.line import sinks
from fewshot_ad.line.fleet import Puller
from fewshot_ad.line.journal import InUseError, Journal
from fewshot_ad.line.judge import LoadJudge
from fewshot_ad.line.record import Record
from fewshot_ad.line.settings import CameraEntry, FolderEntry, StationSettings, camera_name, read_secret
from fewshot_ad.line.sinks import Publisher, Sink
from fewshot_ad.line.sinks.replica import Replicator
from fewshot_ad.line.sources import CameraSource, FolderSource
from fewshot_ad.line.station.app import create_app
from fewshot_ad.line.station.baselines import load_baselines
from fewshot_ad.line.station.condition import disk_free
from fewshot_ad.line.station.connections import Connection
from fewshot_ad.line.station.jobs import Jobs
from fewshot_ad.line.station.logs import log_record, log_to_stderr
from fewshot_ad.line.station.metrics import StationMetrics
from fewshot_ad.line.station.routes.common import Running
from fewshot_ad.line.station.station import Station
from fewshot_ad.line.station.teaching import Teaching

logger = logging.getLogger("fewshot_ad.station")

# How long requests that are under way may take once the station is told to end, and what is published after that.
GRACE_S, DRAIN_S = 20, 5.0
# Shorter tokens can be guessed.
MIN_TOKEN = 16
# Connections beyond are refused: a browser has six.
MAX_CONNECTIONS = 200


class _Server(uvicorn.Server):
    """A server that ends well when it is told to; uvicorn's own ends its process by the signal, as if it had failed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class ServingStation:
    """A station with its sources and sinks, and the server around it.

    Args:
        settings: What it is told, see `settings.read_settings`.
        load_baseline: Reads one of the fitted baselines that the settings name: `Baseline.load`. None if they name
            none.

    Attributes:
        url: Where it is served.

    Raises:
        StationError: Something that the settings name cannot be used, or the port is taken.
    """

    def __init__(self, settings: StationSettings, load_baseline: LoadJudge | None = None) -> None:
        if not Path(settings.catalog).is_dir():
            raise StationError(
                f"catalog: expected a folder at {settings.catalog}, got none. Create it, or name another."
            )
        token = read_secret(settings.listen.token_file, "a token")
        if token is not None and (not token.isascii() or len(token) < MIN_TOKEN):
            raise StationError(
                f"expected a token of at least {MIN_TOKEN} ASCII letters, digits and signs in "
                f"{settings.listen.token_file}, got another one. python -c 'import secrets; "
                "print(secrets.token_urlsafe(32))' makes one."
            )
        # Before anything else is opened: a second station must not touch what the first one has.
        self._stopped = False
        self._socket = _bound(settings.listen.host, settings.listen.port)
        host, port = self._socket.getsockname()[:2]
        # All addresses of this computer are none that a browser can open; its own one always is.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        try:
            station = Station(settings, load_baseline)
        except BaseException:
            self._socket.close()
            raise
        jobs = Jobs()
        metrics = StationMetrics(self._gauges)
        self.running = Running(station, jobs, Teaching(station, jobs), metrics, token)
        station.on_record(metrics.see)
        station.on_record(log_record)
        try:
            self._add_sources(settings, station)
            self._add_publishers(settings, station.journal)
        except BaseException:
            self._stop()
            self._socket.close()
            raise
        self.app = create_app(self.running, on_start=self._start, on_stop=self._stop)
        self._server = _Server(
            uvicorn.Config(
                self.app,
                log_config=None,
                access_log=False,
                http=Connection,
                server_header=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=GRACE_S,
                # What stands before the station must not say who calls.
                proxy_headers=False,
            )
        )

    def run(self) -> None:
        """Serve until the process is told to end (SIGTERM, SIGINT), then give the verdicts that are under way."""
        log_to_stderr(self.running.station.settings.log)
        for one in self.running.station.lost:
            logger.warning(
                "no verdict on %s from %s, %s: the station had ended", one.name or one.id, one.source, one.time
            )
        try:
            self._server.run(sockets=[self._socket])
        finally:
            # Also where the server ended at once: at a second Ctrl-C, or since it could not begin.
            self._stop()

    def stop(self) -> None:
        """Have `run` end, from another thread."""
        self._server.should_exit = True

    def _start(self) -> None:
        for publisher in self.running.publishers:
            publisher.start()
        for source in self.running.sources:
            source.start()
        logger.info("station %s at %s", self.running.station.settings.station, self.url)

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        # From the front to the back: no further images, then their verdicts out, then the journal closed.
        for source in self.running.sources:
            source.stop()
        self.running.jobs.stop()
        for publisher in self.running.publishers:
            publisher.stop(DRAIN_S)
        self.running.station.close()
        logger.info("station %s has stopped", self.running.station.settings.station)

    def _add_sources(self, settings: StationSettings, station: Station) -> None:
        running, most = self.running, int(settings.limits.image_mb * 1e6)
        triggered = settings.modbus.camera if settings.modbus is not None else None
        running.sources += [FolderSource(entry, station.inspect, max_bytes=most) for entry in settings.folders]
        for entry in settings.cameras:
            name = camera_name(entry)
            # What a PLC triggers is inspected then, and only then.
            camera = CameraSource(entry, station.inspect, free_running=name != triggered)
            running.cameras[name] = camera
            running.sources.append(camera)
        if settings.store is not None:
            running.sources.append(Puller(settings.store.url, station.catalog, settings.store.every_s))

    def _add_publishers(self, settings: StationSettings, journal: Journal) -> None:
        self.running.publishers += [Publisher(sink, journal) for sink in _sinks(settings, self.running)]
        if settings.replica is not None:
            url = settings.replica.url or read_secret(settings.replica.url_file, "the URL of a database") or ""
            self.running.publishers.append(Replicator(journal, url, settings.replica.every_s))

    def _gauges(self) -> dict[str, tuple[str, float | dict[str, float]]]:
        running, station = self.running, self.running.station
        states = [publisher.state for publisher in running.publishers]
        return {
            "fewshot_ad_up": ("1 while verdicts are recorded.", float(not station.trouble)),
            "fewshot_ad_waiting": ("Images that wait or are inspected.", float(station.waiting)),
            "fewshot_ad_products": ("Products that are judged.", float(len(station.products))),
            "fewshot_ad_pictures_bytes": ("What pictures take.", float(station.pictures.nbytes)),
            "fewshot_ad_disk_free_bytes": ("Free on disk.", {k: float(v) for k, v in disk_free(station).items()}),
            "fewshot_ad_sink_waiting": (
                "Records that a sink has not taken.",
                {one.name: float(one.waiting) for one in states},
            ),
            "fewshot_ad_sink_connected": (
                "1 while a sink takes records.",
                {one.name: float(one.connected) for one in states},
            ),
        }


def check_settings(settings: StationSettings, load_baseline: LoadJudge | None = None) -> list[str]:
    """What is wrong with settings before a station is started with them, each with what to do; empty for nothing.

    Nothing is made, and a station that runs with them meanwhile is not disturbed.

    Args:
        settings: The settings.
        load_baseline: As for `ServingStation`.
    """
    running, problem = _look_at_journal(settings.journal, settings.station)
    checks: list[Callable[[], object]]
    checks = [functools.partial(read_secret, file, what) for file, what in _secret_files(settings)]
    checks.append(functools.partial(_sinks, settings, None))
    if Path(settings.catalog).is_dir():
        catalog = Catalog(settings.catalog)
        # Each by itself, so that all that is wrong is told, then together; but read once.
        load = None if load_baseline is None else functools.cache(load_baseline)
        checks += [functools.partial(load_baselines, [folder], load, catalog) for folder in settings.baselines]
        checks.append(lambda: _check_names(settings, load, catalog))
    # The station whose settings are checked has the port, too.
    checks += [] if running else [lambda: _bound(settings.listen.host, settings.listen.port).close()]
    return list(dict.fromkeys([*_missing_folders(settings), *([problem] if problem else []), *_failures(checks)]))


def _check_names(settings: StationSettings, load_baseline: LoadJudge | None, catalog: Catalog) -> None:
    """Look for what folders and cameras are said to show.

    Raises:
        StationError: There is no such product yet.
        FewshotADError: Baselines cannot be read, or judge the same.
    """
    known = {*catalog.names, *load_baselines(settings.baselines, load_baseline, catalog)}
    sources: list[FolderEntry | CameraEntry] = [*settings.folders, *settings.cameras]
    named = {entry.product for entry in sources if entry.product is not None}
    if absent := sorted(named - known):
        raise StationError(
            f"product: expected one of the {len(known)} products, got {', '.join(absent)}. Teach it, or mend the name."
        )


def _failures(checks: Iterable[Callable[[], object]]) -> Iterator[str]:
    for check in checks:
        try:
            check()
        except FewshotADError as error:
            yield str(error)


def _missing_folders(settings: StationSettings) -> Iterator[str]:
    needed = {"catalog": settings.catalog}
    if "://" not in settings.journal:
        needed["journal"] = str(Path(settings.journal).parent)
    for what, folder in [*needed.items(), *(("folders", entry.path) for entry in settings.folders)]:
        if not Path(folder).is_dir():
            yield f"{what}: expected a folder at {folder}, got none. Create it."
    watched = [os.path.realpath(entry.path) for entry in settings.folders]
    for folder in {one for one in watched if watched.count(one) > 1}:
        yield f"folders: expected each folder once, got {folder} several times. Leave the others out."
    if os.path.realpath(settings.pictures.folder) in {os.path.realpath(settings.catalog), *watched}:
        yield f"pictures.folder: expected a folder of its own, got {settings.pictures.folder}. Name another one."
    pictures = Path(settings.pictures.folder)
    parent = next(path for path in [pictures, *pictures.parents] if path.exists())
    if not os.access(parent, os.W_OK):
        yield f"pictures.folder: expected a folder that may be written, got {parent}. Change its permissions."


def _look_at_journal(place: str, station: str) -> tuple[bool, str]:
    """Whether a station writes it now, and what is wrong with it."""
    if "://" not in place and not Path(place).exists():
        return False, ""
    try:
        Journal.open(place, station, exclusive=True).close()
    except InUseError:
        return True, ""
    except StationError as error:
        return False, str(error)
    return False, ""


def _secret_files(settings: StationSettings) -> list[tuple[str | None, str]]:
    """The files that hold secrets, and what in each."""
    found = [(settings.listen.token_file, "a token")]
    found += [(webhook.secret_file, "a secret") for webhook in settings.webhooks]
    found += [(entry.password_file, "a password") for entry in (settings.mqtt, settings.opcua) if entry is not None]
    if settings.replica is not None:
        found.append((settings.replica.url_file, "the URL of a database"))
    return found


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With its protocol: of a socket that does not name TCP, asyncio leaves small packets to wait 40 ms for others.
        found = socket.socket(family, kind, protocol)
        # Elsewhere it lets a port be taken again that was in use a moment ago; on Windows, one that is in use.
        if sys.platform != "win32":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)
    except OSError as error:
        raise StationError(
            f"listen: expected to listen at {host}, port {port}, got {error.strerror}. Choose another port, or end "
            "what listens there."
        ) from error
    return found


def _sinks(settings: StationSettings, running: Running | None) -> list[Sink]:
    found: list[Sink] = []
    if settings.mqtt is not None:
        found.append(sinks.MqttSink(settings.mqtt, settings.station))
    if settings.opcua is not None:
        found.append(sinks.OpcuaSink(settings.opcua, settings.station))
    if settings.modbus is not None:
        found.append(sinks.ModbusSink(settings.modbus, _trigger(running, settings.modbus.camera)))
    return [*found, *(sinks.WebhookSink(entry) for entry in settings.webhooks)]


def _trigger(running: Running | None, name: str | None) -> Any:
    if name is None or running is None:
        return None

    def trigger() -> Record:
        return running.cameras[name].trigger()

    return trigger
