"""A webhook gets each record once it answers, signed, and nothing else happens to the request."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fewshot_ad.errors import StationError
from fewshot_ad.line.journal import Journal
from fewshot_ad.line.settings import WebhookEntry
from fewshot_ad.line.sinks import Publisher, RefusedError, SinkError, WebhookSink, sink
from fewshot_ad.line.sinks.webhook import signature, verify
from tests.line.sinks.helpers import free_port, record_of, wait_until


class Receiver(http.server.ThreadingHTTPServer):
    """Remembers requests, and answers as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.delay_s = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/line/verdicts?press=3"

    @property
    def ids(self) -> list[str]:
        return [json.loads(body)["id"] for _, _, body in self.requests]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.delay_s)
        status = self.server.answers.pop(0) if self.server.answers else 204
        self.server.requests.append((self.path, dict(self.headers), body))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        if status >= 300:
            self.wfile.write(f"said {status}".encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def entry_of(url: str, **more: object) -> WebhookEntry:
    return WebhookEntry.model_validate({"url": url, **more})


def test_a_record_arrives_as_it_is(receiver: Receiver) -> None:
    record = record_of(name="Gehäuse 7.png")
    WebhookSink(entry_of(receiver.url)).send(record)
    (path, headers, body) = receiver.requests[0]
    assert path == "/line/verdicts?press=3"
    assert body.decode() == record.to_json()
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == headers["X-Fewshot-Ad-Id"] == record.id
    assert "X-Fewshot-Ad-Signature" not in headers


def test_a_signature_is_checked(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    hook = WebhookSink(entry_of(receiver.url, secret_file=str(tmp_path / "secret")))
    hook.send(record_of())
    _, headers, body = receiver.requests[0]
    assert verify("correct horse", headers, body)
    assert not verify("wrong horse", headers, body)
    assert not verify("correct horse", headers, body + b" ")
    assert not verify("correct horse", {**headers, "X-Fewshot-Ad-Signature": "sha256=é"}, body)
    assert not verify("correct horse", {}, body)


@pytest.mark.parametrize("timestamp", ["", "x", "-5", "²", "9" * 5000])
def test_a_time_that_is_none_is_no_signature(timestamp: str) -> None:
    signed = signature("secret", timestamp, b"{}")
    assert not verify("secret", {"X-Fewshot-Ad-Timestamp": timestamp, "X-Fewshot-Ad-Signature": signed}, b"{}")


@pytest.mark.parametrize(("age", "taken"), [(0, True), (200, True), (400, False), (-200, True), (-400, False)])
def test_an_old_request_is_not_taken_again(age: int, taken: bool) -> None:
    timestamp = str(int(time.time()) - age)
    headers = {"x-fewshot-ad-timestamp": timestamp, "X-FEWSHOT-AD-SIGNATURE": signature("secret", timestamp, b"{}")}
    assert verify("secret", headers, b"{}") is taken


def test_a_receiver_that_fails_twice_gets_all_in_order(
    receiver: Receiver, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "FIRST_PAUSE_S", 0.02)
    receiver.answers = [500, 503]
    publisher = Publisher(WebhookSink(entry_of(receiver.url, name="MES")), journal)
    publisher.start()
    ids = [record.id for record in (record_of() for _ in range(5)) if journal.add(record)]
    wait_until(lambda: publisher.state.waiting == 0 and len(receiver.ids) == 7)
    publisher.stop()
    assert receiver.ids == [ids[0], ids[0], *ids]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_not_now_is_tried_again(receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    with pytest.raises(SinkError, match=f"answer 2xx, got {status}: said {status}") as raised:
        WebhookSink(entry_of(receiver.url, name="MES")).send(record_of())
    assert not isinstance(raised.value, RefusedError)


@pytest.mark.parametrize("status", [302, 400, 401, 404, 413])
def test_never_is_passed_over_and_noted(receiver: Receiver, journal: Journal, status: int) -> None:
    receiver.answers = [status]
    publisher = Publisher(WebhookSink(entry_of(receiver.url, name="MES")), journal)
    refused, taken = record_of(), record_of()
    journal.add(refused)
    journal.add(taken)
    publisher.start()
    wait_until(lambda: publisher.state.waiting == 0)
    publisher.stop()
    assert receiver.ids == [refused.id, taken.id]
    assert {path for path, _, _ in receiver.requests} == {"/line/verdicts?press=3"}
    assert f"webhook:MES: record {refused.id} was refused" in journal.events(kinds=["refused"])[0].text


def test_only_the_verdicts_that_were_asked_for_are_sent(receiver: Receiver) -> None:
    hook = WebhookSink(entry_of(receiver.url, verdicts=["anomalous", "unreadable"]))
    records = [record_of("good"), record_of("anomalous"), record_of("review"), record_of("unreadable")]
    for record in records:
        hook.send(record)
    assert receiver.ids == [records[1].id, records[3].id]


def test_no_receiver_and_a_slow_one_are_tried_again(receiver: Receiver) -> None:
    with pytest.raises(SinkError, match="refused"):
        WebhookSink(entry_of(f"http://127.0.0.1:{free_port()}/")).send(record_of())
    receiver.delay_s = 1.0
    with pytest.raises(SinkError, match="timed out"):
        WebhookSink(entry_of(receiver.url, timeout_s=0.1)).send(record_of())


def test_no_proxy_is_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    WebhookSink(entry_of(receiver.url)).send(record_of())
    assert len(receiver.requests) == 1


def test_an_address_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(StationError, match="without a password, got one for mes"):
        WebhookSink(entry_of("https://user:password@mes/verdicts"))
    with pytest.raises(StationError, match="port of a webhook"):
        WebhookSink(entry_of("https://mes:99999/verdicts"))
    with pytest.raises(StationError, match="secret of a webhook"):
        WebhookSink(entry_of("https://mes/", secret_file=str(tmp_path / "none")))


def test_letters_in_an_address_are_quoted(receiver: Receiver) -> None:
    WebhookSink(entry_of(f"http://127.0.0.1:{receiver.server_port}/prüfung 3/%41?a=ö")).send(record_of())
    assert receiver.requests[0][0] == "/pr%C3%BCfung%203/%41?a=%C3%B6"
