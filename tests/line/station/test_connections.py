"""Connections that say nothing end; those in use stay."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fewshot_ad.line.settings import parse_settings
from fewshot_ad.line.station import ServingStation
from fewshot_ad.line.station.connections import Connection
from fewshot_ad.line.station.serving import MAX_CONNECTIONS

HEAD_S = 0.8


@pytest.fixture
def url(catalog_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Connection, "head_s", HEAD_S)
    settings = parse_settings({"catalog": str(catalog_folder), "listen": {"port": 0}}, tmp_path)
    serving = ServingStation(settings)
    thread = threading.Thread(target=serving.run)
    thread.start()
    with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
        client.get(f"{serving.url}healthz")
    yield serving.url
    serving.stop()
    thread.join(30)


def connect(url: str) -> socket.socket:
    address = httpx.URL(url)
    return socket.create_connection((address.host, address.port), timeout=10)


def test_as_many_as_there_may_be_that_say_nothing_do_not_keep_others_out_for_long(url: str) -> None:
    silent = [connect(url) for _ in range(MAX_CONNECTIONS)]
    # Among them some that began a request and never end its head.
    for one in silent[::2]:
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
    assert httpx.get(f"{url}healthz").status_code == 503
    for one in silent:
        assert one.recv(1) == b""
        one.close()
    assert httpx.get(f"{url}healthz").status_code == 200


def test_a_head_that_trickles_in_is_not_waited_for(url: str) -> None:
    with connect(url) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        with pytest.raises(OSError, match=r"(?i)pipe|reset|abort"):
            trickle(slow)


def trickle(connection: socket.socket) -> None:
    """A byte now and then, for longer than anybody should wait."""
    for _ in range(60):
        connection.sendall(b"x")
        time.sleep(0.1)


def test_a_connection_in_use_stays(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Several times as long as a busy computer makes a request wait.
    head_s = 3.0
    monkeypatch.setattr(Connection, "head_s", head_s)
    address = httpx.URL(url)
    used = http.client.HTTPConnection(address.host, address.port or 80, timeout=10)
    used.connect()
    at = used.sock.getsockname()
    for _ in range(8):
        time.sleep(head_s / 6)
        used.request("GET", "/healthz")
        assert used.getresponse().read()
        assert used.sock.getsockname() == at
    used.close()
