"""A station under load for minutes, with everything going wrong that does in a plant; prints what became of it.

python benchmarks/soak.py                     # 20 images/s for 10 minutes
python benchmarks/soak.py --minutes 1 --rate 5
python benchmarks/soak.py --without-faults    # one process from beginning to end: does its memory grow?

Faults, by the share of the time that has passed: uploads that are cut short (all the time), clients that send a byte a
second (all the time), the broker killed and started again, kill -9 and a new start (twice), a full disk, the clock set
forward and back. What needs root (a small disk of its own), mosquitto or libfaketime is left out where that is missing,
and said.

What is counted: every image that was sent has one verdict in the journal, and the one that was answered; every record
has reached the subscriber of the broker, and how many came twice; memory of the station over time; time to the answer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import yaml

from fewshot_ad import Inspector
from fewshot_ad.line.journal import Journal, Selection

PNG = {"Content-Type": "image/png"}
SMALL_DISK_MB = 300
MOUNT, UMOUNT = shutil.which("mount"), shutil.which("umount")
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


def part(seed: int, defect: bool, side: int) -> np.ndarray:
    """A washer on a textured table, (side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.normal(110, 25, (side, side, 3)).astype(np.float32), (0, 0), 1.5)
    cv2.circle(image, (side // 2, side // 2), side // 3, (190, 185, 180), -1, cv2.LINE_AA)
    cv2.circle(image, (side // 2, side // 2), side // 7, (60, 60, 65), -1, cv2.LINE_AA)
    if defect:
        cv2.circle(image, (3 * side // 4, side // 2), side // 14, (30, 20, 140), -1, cv2.LINE_AA)
    return np.clip(image, 0, 255).astype(np.uint8)


def encoded(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Process:
    """A program that can be killed and started again."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self._command, self._log, self._environment = command, log, environment
        self.running: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, again if it has ended."""
        with self._log.open("ab") as log:
            self.running = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    def end(self, number: int) -> int:
        """Send it a signal and wait; its exit code."""
        assert self.running is not None  # noqa: S101
        self.running.send_signal(number)
        return self.running.wait(60)

    @property
    def megabytes(self) -> float:
        """What it has in memory."""
        assert self.running is not None  # noqa: S101
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{self.running.pid}/status").read_text()
            return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1e3
        return float("nan")


class Load:
    """Sends images at a rate, each until it is answered."""

    def __init__(self, url: str, images: list[bytes], rate: float, threads: int) -> None:
        self._url, self._images, self._rate, self._threads = url, images, rate, threads
        self._next, self._lock = 0, threading.Lock()
        self.until = 0.0
        self.answers: dict[str, str] = {}
        self.seconds: list[float] = []
        self.tries: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        """Send for so long."""
        self._began = time.monotonic()
        self.until = self._began + seconds
        senders = [threading.Thread(target=self._send) for _ in range(self._threads)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

    def _send(self) -> None:
        with httpx.Client(timeout=30) as client:
            while True:
                with self._lock:
                    number = self._next
                    self._next += 1
                due = self._began + number / self._rate
                if due > self.until:
                    return
                time.sleep(max(0.0, due - time.monotonic()))
                self._until_answered(client, number)

    def _until_answered(self, client: httpx.Client, number: int) -> None:
        image = self._images[number % len(self._images)]
        if number % 50 == 7:
            image = image[: len(image) // 2]
        key, began, first = f"image {number}", time.monotonic(), True
        while True:
            try:
                headers = {**PNG, "Idempotency-Key": key}
                answer = client.post(f"{self._url}api/products/washer/inspect", content=image, headers=headers)
            except httpx.HTTPError as error:
                self.tries[type(error).__name__] += 1
            else:
                self.tries[str(answer.status_code)] += 1
                if answer.status_code in (200, 422):
                    body = answer.json()
                    record = body if answer.status_code == 200 else body["record"]
                    self.answers[key] = record["id"]
                    if first:
                        self.seconds.append(time.monotonic() - began)
                    return
            first = False
            time.sleep(0.1 + random.random() / 10)  # noqa: S311


def slow_clients(port: int, stop: threading.Event) -> int:
    """Clients that begin a request and then send a byte a second, one after the other."""
    count = 0
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            head = f"POST /api/inspect HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 100000\r\n"
            connection.sendall(f"{head}Content-Type: image/png\r\n\r\n".encode())
            count += 1
            for _ in range(8):
                if stop.wait(1):
                    break
                connection.sendall(b"x")
        stop.wait(0.5)
    return count


def listen(port: int, stop: threading.Event) -> list[str]:
    """The ids that a subscriber of the broker has got, each time that it got one."""
    from paho.mqtt import client as mqtt

    got: list[str] = []
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="soak", clean_session=False)
    client.on_message = lambda _, __, message: got.append(json.loads(message.payload)["id"])
    client.on_connect = lambda it, *_: it.subscribe("fewshot-ad/+/verdicts", qos=1)
    client.connect_async("127.0.0.1", port)
    client.reconnect_delay_set(1, 2)
    client.loop_start()
    stop.wait()
    client.loop_stop()
    return got


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of its own at a folder; whether there is one."""
    size = f"size={SMALL_DISK_MB}m"
    made = (
        os.geteuid() == 0
        and not subprocess.run(
            [MOUNT, "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )
    try:
        yield made
    finally:
        if made and UMOUNT is not None:
            subprocess.run([UMOUNT, "-l", str(folder)], check=False)


def wait_until_up(url: str) -> float:
    began = time.monotonic()
    while time.monotonic() - began < 60:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{url}healthz")
            break
        time.sleep(0.05)
    return time.monotonic() - began


class Faults:
    """What goes wrong, and when."""

    def __init__(
        self, station: Process, broker: Process | None, disk: Path | None, clock: Path | None, url: str
    ) -> None:
        self._station, self._broker, self._disk, self._clock, self._url = station, broker, disk, clock, url
        self.said: list[str] = []

    def run(self, seconds: float) -> None:
        """Do it all within so long."""
        plan = [
            (0.15, self._broker_dies, self._broker),
            (0.3, self._killed, self._station),
            (0.45, self._full_disk, self._disk),
            (0.6, self._clock_jumps, self._clock),
            (0.75, self._killed, self._station),
        ]
        began = time.monotonic()
        for share, fault, needed in plan:
            time.sleep(max(0.0, began + share * seconds - time.monotonic()))
            if needed is not None:
                self.said.append(f"{time.monotonic() - began:6.1f} s  {fault(max(2.0, seconds / 30))}")

    def _broker_dies(self, seconds: float) -> str:
        assert self._broker is not None  # noqa: S101
        self._broker.end(signal.SIGKILL)
        time.sleep(seconds)
        self._broker.start()
        return f"broker killed, back after {seconds:.0f} s"

    def _killed(self, _: float) -> str:
        self._station.end(signal.SIGKILL)
        self._station.start()
        return f"station killed (kill -9), answers again after {wait_until_up(self._url):.1f} s"

    def _full_disk(self, seconds: float) -> str:
        assert self._disk is not None  # noqa: S101
        filler = self._disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        time.sleep(seconds)
        filler.unlink()
        return f"disk full for {seconds:.0f} s"

    def _clock_jumps(self, seconds: float) -> str:
        assert self._clock is not None  # noqa: S101
        self._clock.write_text("+3d")
        time.sleep(seconds)
        self._clock.write_text("-1d")
        time.sleep(seconds)
        self._clock.write_text("+0")
        return "clock three days ahead, then a day behind, then right"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=20.0, help="images per second")
    parser.add_argument("--side", type=int, default=320, help="of an image, in pixels")
    parser.add_argument("--without-faults", action="store_true", help="only load")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fewshot-ad-soak-") as scratch:
        soak(Path(scratch), 60 * args.minutes, args.rate, args.side, not args.without_faults)


def soak(folder: Path, seconds: float, rate: float, side: int, faults: bool) -> None:
    (folder / "products").mkdir()
    (folder / "disk").mkdir()
    support = [part(seed, False, side) for seed in range(8)]
    product = Inspector.from_support(support, product="washer", preset="fast")
    product.save(folder / "products" / "washer.fsad")
    images = [encoded(part(100 + seed, seed % 10 == 0, side)) for seed in range(60)]
    with small_disk(folder / "disk") as has_disk:
        _soak(folder, seconds, rate, images, has_disk, faults)


def _soak(folder: Path, seconds: float, rate: float, images: list[bytes], has_disk: bool, with_faults: bool) -> None:
    port, broker_port = free_port(), free_port()
    url, stop, got = f"http://127.0.0.1:{port}/", threading.Event(), []
    settings: dict[str, Any] = {
        "catalog": "products",
        "journal": "disk/journal.db",
        "pictures": {"folder": "disk/pictures", "keep": "all", "quota_mb": SMALL_DISK_MB / 3},
        "listen": {"port": port},
        "limits": {"upload_s": 5, "queue": 16},
    }
    broker, listener = None, None
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if mosquitto:
        settings["mqtt"] = {"port": broker_port}
        # Where its subscriber is away, or it dies, it must keep what it has acknowledged.
        (folder / "broker.conf").write_text(
            f"listener {broker_port} 127.0.0.1\nallow_anonymous true\npersistence true\nmax_queued_messages 0\n"
            f"persistence_location {folder}/\nautosave_interval 1\nautosave_on_changes true\nuser root\n"
        )
        broker = Process([mosquitto, "-c", str(folder / "broker.conf")], folder / "broker.log")
        listener = threading.Thread(target=lambda: got.extend(listen(broker_port, stop)))
        listener.start()
    environment, clock = dict(os.environ), None
    if FAKETIME is not None:
        clock = folder / "clock"
        clock.write_text("+0")
        # The file is read once a second: at every look at the clock it would slow the station down tenfold.
        faked = {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1"}
        faked["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
        environment |= {"LD_PRELOAD": str(FAKETIME), **faked}
    (folder / "station.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "fewshot_ad", "serve", str(folder / "station.yaml")]
    station = Process(command, folder / "station.log", environment)
    print(f"first answer {wait_until_up(url):.1f} s after the start")
    memory: list[tuple[float, int, float]] = []
    slow = threading.Thread(target=slow_clients, args=(port, stop))
    watch = threading.Thread(target=_watch, args=(station, stop, memory))
    faults = Faults(station, broker, folder / "disk" if has_disk else None, clock, url)
    breaking = threading.Thread(target=faults.run, args=(seconds,))
    load = Load(url, images, rate, 8)
    threads = (slow, watch, breaking) if with_faults else (watch,)
    for thread in threads:
        thread.start()
    load.run(seconds)
    if with_faults:
        breaking.join()
        print("\n".join(faults.said))
    for what, there in (("small disk", has_disk), ("mosquitto", mosquitto), ("libfaketime", clock)):
        if not there:
            print(f"left out, since there is none: {what}")
    _wait_for_sinks(url)
    health = httpx.get(f"{url}api/health").json()
    code = station.end(signal.SIGTERM)
    time.sleep(2)
    stop.set()
    for thread in (*threads, *([listener] if listener else [])):
        thread.join()
    if broker is not None:
        broker.end(signal.SIGTERM)
    _report(folder, load, got if mosquitto else None, memory, health, code)
    if code:
        print((folder / "station.log").read_text()[-3000:])


def _wait_for_sinks(url: str) -> None:
    for _ in range(240):
        if not any(sink["waiting"] for sink in httpx.get(f"{url}api/health").json()["sinks"]):
            return
        time.sleep(0.5)


def _watch(station: Process, stop: threading.Event, memory: list[tuple[float, int, float]]) -> None:
    began = time.monotonic()
    while not stop.wait(1):
        pid = station.running.pid if station.running is not None else 0
        memory.append((time.monotonic() - began, pid, station.megabytes))


def _report(
    folder: Path,
    load: Load,
    got: list[str] | None,
    memory: list[tuple[float, int, float]],
    health: dict[str, Any],
    code: int,
) -> None:
    journal = Journal.open(folder / "disk" / "journal.db", "station")
    recorded = {record.key: record.id for record in journal.each(Selection())}
    events = Counter(event.kind for event in journal.events(10_000))
    counts = {verdict: count for verdict, count in journal.counts(Selection()).items() if count}
    journal.close()
    print(f"ended with code {code}, health: {health['status']} {health['problems']}")
    print(f"sent {len(load.answers)} images, answers by status, and tries that failed: {dict(load.tries)}")
    print(f"journal: {len(recorded)} records {counts}, events {dict(events)}")
    print(f"verdicts that were answered and are not in the journal: {len(set(load.answers) - set(recorded))}")
    print(f"records that nobody was answered: {len(set(recorded) - set(load.answers))}")
    print(f"answers that name another record: {sum(recorded.get(key) != one for key, one in load.answers.items())}")
    if got is not None:
        missing = len(set(recorded.values()) - set(got))
        print(f"broker's subscriber: {len(got)} messages, {missing} missing, {len(got) - len(set(got))} came twice")
    p50, p95, p99 = 1e3 * np.quantile(load.seconds, (0.5, 0.95, 0.99))
    print(f"answered at the first try: {len(load.seconds)}; p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")
    for pid in dict.fromkeys(pid for _, pid, _ in memory):
        life = [(at, megabytes) for at, one, megabytes in memory if one == pid and np.isfinite(megabytes)]
        # The first seconds fill what stays.
        life = life[len(life) // 4 :]
        if len(life) > 10:
            slope = np.polyfit(*zip(*life, strict=True), 1)[0]
            print(f"memory: {life[0][1]:.0f} MB, then {life[-1][1]:.0f} MB; {60 * slope:+.2f} MB per minute")


if __name__ == "__main__":
    main()
