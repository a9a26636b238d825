"""The station as a process: started, told to end, killed in the middle, started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from fewshot_ad.errors import StationError
from fewshot_ad.line.journal import Journal, Selection
from fewshot_ad.line.settings import parse_settings
from fewshot_ad.line.station import ServingStation, check_settings
from tests.cli.schemas import schema_of, strict
from tests.conftest import make_part
from tests.line.conftest import free_port, png

Serve = Callable[..., tuple[Any, str]]
PNG = {"content-type": "image/png"}


@pytest.fixture
def serve(catalog_folder: Path, tmp_path: Path) -> Iterator[Serve]:
    """Starts `fewshot-ad serve` in a folder; its process, and where it answers."""
    running: list[subprocess.Popen[str]] = []

    def start(*args: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "fewshot_ad", "serve", "--port", "0", "--json", *args]
        log = (tmp_path / "log").open("a")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=tmp_path)
        running.append(process)
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        jsonschema.validate(said, strict(schema_of("serve")))
        url = said["url"]
        for _ in range(200):
            try:
                httpx.get(f"{url}healthz")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        return process, url

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_told_to_end_it_gives_the_verdicts_that_are_under_way(serve: Serve, tmp_path: Path) -> None:
    process, url = serve()
    statuses: list[int] = []

    def send(seed: int) -> None:
        image = png(make_part(seed))
        try:
            statuses.append(httpx.post(f"{url}api/inspect", content=image, headers=PNG, timeout=30).status_code)
        except httpx.TransportError:  # not taken any more, or taken by the system alone
            statuses.append(0)

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert process.wait(30) == 0
    journal = Journal.open(tmp_path / "journal.db", "station")
    # Whoever got a verdict is in the journal, and nobody else; nothing was lost on the way.
    assert sum(journal.counts(Selection()).values()) == statuses.count(200)
    assert set(statuses) <= {200, 503, 0}
    assert journal.events()[0].kind == "stop"
    assert journal.start("again") == []
    journal.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_killed_in_the_middle_nothing_is_lost_and_nothing_counted_twice(serve: Serve, tmp_path: Path) -> None:
    images = [png(make_part(seed, defect=seed % 3 == 0)) for seed in range(4)]
    answered: dict[str, str] = {}
    url, stop = "", threading.Event()

    def send(thread: int) -> None:
        number = 0
        while not stop.is_set():
            key = f"{thread}-{number}"
            try:
                headers = {**PNG, "Idempotency-Key": key}
                answer = httpx.post(f"{url}api/inspect", content=images[number % 4], headers=headers, timeout=10)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                answered[key] = answer.json()["id"]
                number += 1

    process, url = serve()
    senders = [threading.Thread(target=send, args=(thread,)) for thread in range(2)]
    for sender in senders:
        sender.start()
    for _ in range(2):
        before = len(answered)
        while len(answered) < before + 12:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process, url = serve()
    before = len(answered)
    while len(answered) < before + 6:
        time.sleep(0.02)
    stop.set()
    for sender in senders:
        sender.join()
    process.terminate()
    assert process.wait(30) == 0
    journal = Journal.open(tmp_path / "journal.db", "station")
    recorded = {record.key: record.id for record in journal.each(Selection())}
    assert recorded == answered
    kinds = [event.kind for event in journal.events()]
    assert kinds.count("trouble") == 2
    assert kinds.count("lost") <= 4
    journal.close()


def test_a_second_station_leaves_the_first_ones_journal_alone(serve: Serve, tmp_path: Path) -> None:
    _, url = serve()
    for args in (["--port", "0"], ["--port", url.rsplit(":", 1)[1].strip("/"), "--journal", "other.db"]):
        command = [sys.executable, "-m", "fewshot_ad", "serve", *args]
        second = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
        assert second.returncode == 2
        assert "in use" in second.stderr or "listen" in second.stderr
    assert httpx.get(f"{url}healthz").status_code == 200


def test_a_start_that_fails_says_why_and_leaves_nothing_open(catalog_folder: Path, tmp_path: Path) -> None:
    content = {
        "catalog": str(catalog_folder),
        "listen": {"port": 0},
        "store": {"url": "store"},
        "mqtt": {"username": "u", "password_file": "none"},
    }
    for _ in range(2):
        with pytest.raises(StationError, match="password"):
            ServingStation(parse_settings(content, tmp_path))
    assert any("password" in problem for problem in check_settings(parse_settings(content, tmp_path)))


def test_small_answers_do_not_wait_for_others(catalog_folder: Path, tmp_path: Path) -> None:
    serving = ServingStation(parse_settings({"catalog": str(catalog_folder), "listen": {"port": 0}}, tmp_path))
    # By this asyncio knows to switch Nagle's algorithm off: it would add 40 ms to every verdict.
    assert serving._socket.proto == socket.IPPROTO_TCP
    serving._stop()
    serving._socket.close()


def test_a_token_that_can_be_guessed_is_refused(catalog_folder: Path, tmp_path: Path) -> None:
    for token in ("short", "ä" * 40):
        (tmp_path / "token").write_text(token, encoding="utf-8")
        with pytest.raises(StationError, match="at least 16 ASCII"):
            ServingStation(
                parse_settings({"catalog": str(catalog_folder), "listen": {"port": 0, "token_file": "token"}}, tmp_path)
            )


def test_the_settings_of_a_station_that_runs_are_checked(serve: Serve, catalog_folder: Path, tmp_path: Path) -> None:
    _, url = serve()
    port = int(url.rsplit(":", 1)[1].strip("/"))
    settings = parse_settings({"catalog": str(catalog_folder), "listen": {"port": port}}, tmp_path)
    assert check_settings(settings) == []


def test_settings_are_checked_without_a_station(catalog_folder: Path, tmp_path: Path) -> None:
    fine = parse_settings({"catalog": str(catalog_folder), "listen": {"port": 0}}, tmp_path)
    assert check_settings(fine) == []
    port = free_port()
    broken = {
        "catalog": "nowhere",
        "journal": "no/where/journal.db",
        "listen": {"port": port, "token_file": "none"},
        "folders": [{"path": "nowhere"}, {"path": "nowhere"}],
    }
    problems = check_settings(parse_settings(broken, tmp_path))
    # What is wrong with both entries of one folder is told once.
    assert len(problems) == len(set(problems)) == 5
    for words in ("catalog", "folders", "journal", "token"):
        assert any(words in problem for problem in problems), words


def test_images_from_a_folder_become_records_and_are_sent_on(
    catalog_folder: Path, tmp_path: Path, new_database: str
) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    content = {
        "catalog": str(catalog_folder),
        "listen": {"port": 0},
        "folders": [{"path": "incoming", "every_s": 0.05}],
        "replica": {"url": new_database, "every_s": 0.1},
    }
    serving = ServingStation(parse_settings(content, tmp_path))
    thread = threading.Thread(target=serving.run)
    thread.start()
    try:
        for seed in range(3):
            part = incoming / f"{seed}.part"
            part.write_bytes(png(make_part(seed, defect=seed == 2)))
            os.rename(part, incoming / f"{seed}.png")
        shared = Journal.open(new_database, "reader")
        for _ in range(300):
            if sum(shared.counts(Selection()).values()) == 3:
                break
            time.sleep(0.05)
        found = {record.name: record.verdict for record in shared.each(Selection())}
        assert found == {"0.png": "good", "1.png": "good", "2.png": "anomalous"}
        health = httpx.get(f"{serving.url}api/health").json()
        assert {one["name"] for one in health["sinks"]} == {"replica"}
        assert health["sources"][0]["seen"] == 3
        shared.close()
    finally:
        serving.stop()
        thread.join(30)
    assert not list(incoming.glob("*.png"))
