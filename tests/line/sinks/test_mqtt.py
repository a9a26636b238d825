"""Every record reaches a real broker once and in order, also where that is killed and comes back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fewshot_ad.errors import StationError
from fewshot_ad.line.journal import Journal
from fewshot_ad.line.record import Record
from fewshot_ad.line.settings import MqttEntry
from fewshot_ad.line.sinks import Publisher, RefusedError, SinkError, sink
from tests.line.sinks.helpers import free_port, record_of, wait_until

paho = pytest.importorskip("paho.mqtt.client", reason="NO MQTT: pip install 'fewshot-ad[line]'")
mqtt = pytest.importorskip("fewshot_ad.line.sinks.mqtt")

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Broker:
    """A mosquitto of our own."""

    def __init__(self, folder: Path, *config: str) -> None:
        self.port = free_port()
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        lines = [
            f"listener {self.port} 127.0.0.1",
            # As root it would become another user, who cannot write here.
            *(["user root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_interval 1",
            "autosave_on_changes true",
            *(config or ("allow_anonymous true",)),
        ]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        command = [str(MOSQUITTO), "-c", str(self.folder / "mosquitto.conf")]
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self.listens)

    def listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def entry(self, **more: object) -> MqttEntry:
        return MqttEntry.model_validate({"port": self.port, **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if MOSQUITTO is None:
        pytest.skip("NO MQTT BROKER: mosquitto is not installed (apt install mosquitto)")
    made = tmp_path / "broker"
    made.mkdir()
    return made


@pytest.fixture
def broker(folder: Path) -> Iterator[Broker]:
    running = Broker(folder)
    running.start()
    yield running
    running.kill()


class Listener:
    """A control system: it keeps its session, and so misses nothing while it or the broker is away."""

    def __init__(self, port: int, name: str = "listener") -> None:
        self.messages: list[tuple[str, str, bool, bool]] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, name, clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("fewshot-ad/#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _, __, m: self.messages.append((m.topic, m.payload.decode(), m.retain, m.dup))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(5)

    def ids(self) -> list[str]:
        """Of the records, as often as they came."""
        return [json.loads(payload)["id"] for topic, payload, *_ in self.messages if topic.endswith("/verdicts")]

    def states(self) -> list[bool]:
        return [json.loads(payload)["online"] for topic, payload, _, _ in self.messages if topic.endswith("/state")]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    listening = Listener(broker.port)
    yield listening
    listening.close()


def test_records_and_state_lie_on_their_topics(broker: Broker, listener: Listener) -> None:
    station = "press 3/left+#1"
    published = mqtt.MqttSink(broker.entry(topic="plant/line 1/"), station)
    assert published.verdicts_topic == "plant/line 1/press 3_left__1/verdicts"
    published = mqtt.MqttSink(broker.entry(), station)
    published.open()
    record = record_of(name="Gehäuse.png")
    published.send(record)
    wait_until(lambda: len(listener.messages) == 2)
    published.close()
    wait_until(lambda: len(listener.messages) == 3)
    online, verdict, offline = listener.messages
    assert verdict == ("fewshot-ad/press 3_left__1/verdicts", record.to_json(), False, False)
    for message, is_online in ((online, True), (offline, False)):
        assert message[0] == "fewshot-ad/press 3_left__1/state"
        assert json.loads(message[1]) == {"schema": "fewshot-ad/state/1", "station": station, "online": is_online}
    late = Listener(broker.port, "late")
    wait_until(lambda: bool(late.messages))
    assert late.messages[0][2]
    assert late.states() == [False]
    late.close()


def test_a_broker_that_is_killed_and_comes_back_loses_and_doubles_nothing(
    broker: Broker, listener: Listener, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "FIRST_PAUSE_S", 0.1)
    tried: list[str] = []

    class Counting(mqtt.MqttSink):
        def send(self, record: Record) -> None:
            tried.append(record.id)
            super().send(record)

    publisher = Publisher(Counting(broker.entry(), "press 3"), journal)
    publisher.start()
    sent: list[str] = []

    def inspect() -> None:
        for _ in range(150):
            record = record_of()
            journal.add(record)
            sent.append(record.id)
            time.sleep(0.01)

    line = threading.Thread(target=inspect)
    line.start()
    for count in (30, 60):
        wait_until(lambda count=count: len(listener.ids()) > count)
        broker.kill()
        wait_until(lambda: bool(publisher.state.error))
        broker.start()
        wait_until(lambda: not publisher.state.error)
    line.join()
    wait_until(lambda: set(listener.ids()) == set(sent))
    wait_until(lambda: publisher.state.waiting == 0)
    publisher.stop()
    assert list(dict.fromkeys(listener.ids())) == sent
    # One that the broker had, and could not acknowledge any more, is sent twice for each kill, with the same id. How
    # often the listener has it proves nothing: a broker that is killed forgets what it has already delivered, and
    # delivers it again.
    assert list(dict.fromkeys(tried)) == sent
    assert len(tried) <= len(sent) + 2
    wait_until(lambda: listener.states()[-1] is False)


def test_a_record_under_way_is_sent_again_once_and_not_by_the_library(journal: Journal) -> None:
    with StandIn() as stand_in:
        stand_in.acknowledges = False
        published = mqtt.MqttSink(MqttEntry.model_validate({"port": stand_in.port}), "press 3")
        published.open()
        record = record_of()
        threading.Timer(0.2, stand_in.drop).start()
        with pytest.raises(SinkError, match="the connection was lost"):
            published.send(record)
        published.close()
        stand_in.acknowledges = True
        published.open()
        published.send(record)
        published.close()
        verdicts = [payload for topic, payload in stand_in.published if topic.endswith("/verdicts")]
        assert [json.loads(payload)["id"] for payload in verdicts] == [record.id, record.id]


def test_no_acknowledgement_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "ACKNOWLEDGE_S", 0.2)
    with StandIn() as stand_in:
        published = mqtt.MqttSink(MqttEntry.model_validate({"port": stand_in.port}), "press 3")
        published.open()
        stand_in.acknowledges = False
        began = time.monotonic()
        with pytest.raises(SinkError, match=r"acknowledge within 0.2 s, got: nothing"):
            published.send(record_of())
        published.close()
        assert time.monotonic() - began < 3


def test_a_broker_of_mqtt_3_is_spoken_to_in_mqtt_3() -> None:
    with StandIn(knows=4) as stand_in:
        published = mqtt.MqttSink(MqttEntry.model_validate({"port": stand_in.port}), "press 3")
        published.open()
        published.send(record_of())
        published.close()
        assert stand_in.spoken == [5, 4]


def test_a_station_that_goes_without_a_word_is_offline(
    broker: Broker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "FIRST_PAUSE_S", 1)
    published = mqtt.MqttSink(broker.entry(), "press 3")
    published.open()
    wait_until(lambda: listener.states() == [True])
    published._client.socket().shutdown(socket.SHUT_RDWR)
    wait_until(lambda: listener.states()[:2] == [True, False])
    # While nothing is to be sent, the client comes back by itself.
    wait_until(lambda: listener.states() == [True, False, True])
    published.send(record_of())
    published.close()


def test_a_password_is_asked_for(folder: Path, tmp_path: Path) -> None:
    maker = shutil.which("mosquitto_passwd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if maker is None:
        pytest.skip("NO MQTT PASSWORDS: mosquitto_passwd is not installed")
    subprocess.run([maker, "-b", "-c", str(folder / "users"), "line", "correct horse"], check=True)
    (folder / "rights").write_text("user line\ntopic readwrite fewshot-ad/#\n")
    broker = Broker(folder, f"password_file {folder}/users", f"acl_file {folder}/rights")
    broker.start()
    (tmp_path / "right").write_text("correct horse\n")
    (tmp_path / "wrong").write_text("wrong horse\n")
    try:
        published = mqtt.MqttSink(broker.entry(username="line", password_file=str(tmp_path / "right")), "press 3")
        published.open()
        published.send(record_of())
        published.close()
        for entry in (broker.entry(), broker.entry(username="line", password_file=str(tmp_path / "wrong"))):
            with pytest.raises(
                SinkError, match=r"(?i)let the station in, got: .*(not authorized|user name or password)"
            ):
                mqtt.MqttSink(entry, "press 3").open()
        other = broker.entry(topic="other", username="line", password_file=str(tmp_path / "right"))
        published = mqtt.MqttSink(other, "press 3")
        published.open()
        with pytest.raises(
            SinkError, match=r"on other/press 3/verdicts, got: Not authorized\. Check the rights of .*line"
        ):
            published.send(record_of())
        published.close()
    finally:
        broker.kill()


def test_a_connection_is_encrypted(folder: Path) -> None:
    certify(folder, "127.0.0.1")
    broker = Broker(folder, "allow_anonymous true", f"certfile {folder}/server.pem", f"keyfile {folder}/server.key")
    broker.start()
    try:
        published = mqtt.MqttSink(broker.entry(ca_file=str(folder / "server.pem")), "press 3")
        published.open()
        published.send(record_of())
        published.close()
        with pytest.raises(SinkError, match="certificate verify failed"):
            mqtt.MqttSink(broker.entry(tls=True), "press 3").open()
        with pytest.raises(SinkError, match="let the station in, got: the connection was lost"):
            mqtt.MqttSink(broker.entry(), "press 3").open()
        with pytest.raises(SinkError, match="No such file"):
            mqtt.MqttSink(broker.entry(ca_file=str(folder / "none.pem")), "press 3").open()
    finally:
        broker.kill()


def test_a_record_that_is_larger_than_the_broker_takes_is_refused(folder: Path) -> None:
    broker = Broker(folder, "allow_anonymous true", "max_packet_size 2000")
    broker.start()
    try:
        published = mqtt.MqttSink(broker.entry(), "press 3")
        published.open()
        with pytest.raises(RefusedError, match="at most 2000 bytes"):
            published.send(record_of(reason="x" * 2000))
        published.send(record_of())
        published.close()
    finally:
        broker.kill()


def test_no_broker_is_an_error() -> None:
    published = mqtt.MqttSink(MqttEntry.model_validate({"port": free_port()}), "press 3")
    with pytest.raises(SinkError, match=r"expected to reach the MQTT broker at 127\.0\.0\.1"):
        published.open()
    with pytest.raises(SinkError, match="expected a connection"):
        published.send(record_of())
    published.close()


def test_settings_that_make_no_sense_are_named(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    for topic in ("plant/+", "#", "/"):
        with pytest.raises(StationError, match="Name one topic"):
            mqtt.MqttSink(MqttEntry.model_validate({"topic": topic}), "press 3")
    with pytest.raises(StationError, match=r"mqtt\.username with mqtt\.password_file"):
        mqtt.MqttSink(MqttEntry.model_validate({"password_file": str(tmp_path / "password")}), "press 3")


def certify(folder: Path, address: str) -> None:
    """A key, and a certificate that it has signed itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("NO CERTIFICATES: openssl is not installed")
    subject = ["-subj", "/CN=plant", "-addext", f"subjectAltName=IP:{address}"]
    files = ["-keyout", str(folder / "server.key"), "-out", str(folder / "server.pem")]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)


class StandIn:
    """A broker that can keep silent, and can be one of MQTT 3.1.1 (level 4)."""

    def __init__(self, knows: int = 5) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.knows, self.acknowledges = knows, True
        self.spoken: list[int] = []
        self.published: list[tuple[str, str]] = []
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def drop(self) -> None:
        assert self._connection is not None
        self._connection.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._connection, _ = self._listening.accept()
                with self._connection, contextlib.suppress(OSError, EOFError):
                    self._talk(self._connection)

    def _talk(self, connection: socket.socket) -> None:
        stream = connection.makefile("rwb", buffering=0)
        level = 0
        while True:
            head = read(stream, 1)[0]
            length, shift = 0, 0
            while True:
                part = read(stream, 1)[0]
                length |= (part & 127) << shift
                shift += 7
                if part < 128:
                    break
            body = read(stream, length)
            if head == 0x10:
                level = body[6]
                self.spoken.append(level)
                if level > self.knows:
                    stream.write(b"\x20\x02\x00\x01")
                    return
                stream.write(b"\x20\x03\x00\x00\x00" if level == 5 else b"\x20\x02\x00\x00")
            elif head >> 4 == 3:
                end = 2 + int.from_bytes(body[:2], "big")
                # After the packet's number, MQTT 5 has properties: none of one byte.
                payload = body[end + (3 if level == 5 else 2) :]
                self.published.append((body[2:end].decode(), payload.decode()))
                if self.acknowledges:
                    stream.write(b"\x40\x02" + body[end : end + 2])


def read(stream: socket.SocketIO, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = stream.read(count - len(found))
        if not part:
            raise EOFError
        found += part
    return found
