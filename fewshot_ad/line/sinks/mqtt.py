"""Verdicts on an MQTT broker: every record once it is in the journal, and whether the station is there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import struct
import threading
from typing import Any

from fewshot_ad.errors import StationError
from fewshot_ad.line.record import Record
from fewshot_ad.line.settings import MqttEntry, read_secret
from fewshot_ad.line.sinks.sink import RefusedError, SinkError

try:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
except ImportError as error:
    raise SinkError("publishing to MQTT needs the package paho-mqtt: pip install 'fewshot-ad[line]'.") from error

STATE_SCHEMA = "fewshot-ad/state/1"
# Seconds that the broker may take to be reached and to let the station in, to acknowledge a record, and to take note of
# the station's end.
CONNECT_S, ACKNOWLEDGE_S, FAREWELL_S = 5.0, 10.0, 1.0
# Seconds of silence after which broker and station ask each other whether they are there; the broker publishes that a
# station is gone after one and a half of them.
KEEP_ALIVE_S = 15
# Seconds between two tries of the client's own, while no record is under way.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 3, 30
# Bytes of a PUBLISH besides topic and payload, at most.
OVERHEAD = 32
LOST = "the connection was lost"


class MqttSink:
    """Publishes every record with QoS 1: as JSON on TOPIC/STATION/verdicts.

    On TOPIC/STATION/state lies, retained, whether the station is connected; the broker itself says so when it is not
    (last will). MQTT 5 is spoken, and 3.1.1 with a broker that does not know it.

    One record is under way at a time, and only this class sends it again: what the client library has not had
    acknowledged when the connection is lost is dropped with the client, and its socket is reset, so that it cannot
    arrive late. A record then comes twice only if the broker had it already, and the acknowledgement got lost; both
    have the same `id`.

    Args:
        entry: Which broker.
        station: Name of the station; +, # and / in it become _ in topics.

    Raises:
        StationError: The password cannot be read, or the topic is none.
    """

    name = "mqtt"
    replays = True

    def __init__(self, entry: MqttEntry, station: str) -> None:
        if re.search(r"[+#\x00]", entry.topic) or not entry.topic.strip("/"):
            raise StationError(f"expected mqtt.topic without + and #, got {entry.topic!r}. Name one topic.")
        if entry.password_file is not None and entry.username is None:
            raise StationError("expected mqtt.username with mqtt.password_file, got none. Name the user.")
        self._entry, self._station = entry, station
        self._password = read_secret(entry.password_file, "the password of the MQTT broker")
        level = topic_level(station)
        base = entry.topic.rstrip("/")
        self.verdicts_topic, self.state_topic = f"{base}/{level}/verdicts", f"{base}/{level}/state"
        self._client_id = f"fewshot-ad-{level}"
        self._client: paho.Client | None = None
        self._changed = threading.Condition()
        self._opening, self._connected, self._error = False, False, ""
        self._largest: int | None = None
        self._acknowledged: dict[int, ReasonCode] = {}
        self._under_way = False

    def open(self) -> None:
        """Connect, and publish that the station is online.

        Raises:
            SinkError: The broker cannot be reached, or does not let the station in.
        """
        try:
            self._connect(MQTTProtocolVersion.MQTTv5)
        except _OlderBrokerError:
            self._connect(MQTTProtocolVersion.MQTTv311)

    def send(self, record: Record) -> None:
        """Publish a record, and wait until the broker has acknowledged it.

        Args:
            record: It.

        Raises:
            SinkError: The connection is lost, no acknowledgement comes, or the broker does not allow it.
            RefusedError: It is larger than the broker takes.
        """
        payload = record.to_json().encode()
        if self._largest is not None and len(payload) + len(self.verdicts_topic.encode()) + OVERHEAD > self._largest:
            raise RefusedError(
                f"expected a record of at most {self._largest} bytes, as the broker says, got {len(payload)}. Raise "
                "max_packet_size of the broker."
            )
        reason = self._publish(self.verdicts_topic, payload, retain=False, wait_s=ACKNOWLEDGE_S)
        if reason.is_failure:
            raise SinkError(
                f"expected the broker to take a record on {self.verdicts_topic}, got: {reason}. Check the rights of "
                f"the user {self._entry.username or '(none)'} there."
            )

    def close(self) -> None:
        """Publish that the station is offline, and disconnect."""
        client = self._client
        if client is None:
            return
        if self._connected and not self._under_way:
            # A will is only published for who goes without a word.
            with contextlib.suppress(SinkError):
                self._publish(self.state_topic, self._state(False), retain=True, wait_s=FAREWELL_S)
        if self._under_way or not self._connected:
            _reset(client)
        # The client would not end before what it has not had acknowledged.
        client.drop_out_messages()
        client.disconnect()
        client.loop_stop()
        self._client, self._connected, self._under_way = None, False, False

    def _connect(self, protocol: MQTTProtocolVersion) -> None:
        entry = self._entry
        client = paho.Client(CallbackAPIVersion.VERSION2, self._client_id, protocol=protocol)
        client.connect_timeout = CONNECT_S
        client.reconnect_delay_set(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish = self._on_publish
        client.will_set(self.state_topic, self._state(False), qos=1, retain=True)
        if entry.username is not None:
            client.username_pw_set(entry.username, self._password)
        where = f"the MQTT broker at {entry.host}:{entry.port}"
        self._opening, self._connected, self._error, self._largest = True, False, "", None
        try:
            if entry.tls or entry.ca_file is not None:
                client.tls_set_context(ssl.create_default_context(cafile=entry.ca_file))
            client.connect(entry.host, entry.port, KEEP_ALIVE_S)
        except (OSError, ValueError) as error:
            raise SinkError(
                f"expected to reach {where}, cannot: {error}. Check host, port, certificates and the network."
            ) from error
        self._client = client
        client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected or bool(self._error), CONNECT_S)
            connected, reason = self._connected, self._error or "no answer"
            self._opening = False
        if connected:
            return
        self.close()
        if protocol == MQTTProtocolVersion.MQTTv5 and reason in ("Unsupported protocol version", LOST):
            raise _OlderBrokerError(f"expected {where} to speak MQTT 5, got: {reason}.")
        raise SinkError(f"expected {where} to let the station in, got: {reason}. Check username and password_file.")

    def _publish(self, topic: str, payload: bytes, *, retain: bool, wait_s: float) -> ReasonCode:
        """Publish, and wait for the acknowledgement."""
        with self._changed:
            if self._client is None or not self._connected:
                raise SinkError(f"expected a connection to the MQTT broker, got: {self._error or 'none'}.")
            self._acknowledged.clear()
            self._under_way = True
        # Not inside the lock: the client waits for its callbacks, and those for the lock.
        message = self._client.publish(topic, payload, qos=1, retain=retain)
        with self._changed:
            self._changed.wait_for(lambda: message.mid in self._acknowledged or not self._connected, wait_s)
            reason = self._acknowledged.get(message.mid)
            if reason is None:
                raise SinkError(
                    f"expected the broker to acknowledge within {wait_s:g} s, got: {self._error or 'nothing'}."
                )
            self._under_way = False
        return reason

    def _state(self, online: bool) -> bytes:
        state = {"schema": STATE_SCHEMA, "station": self._station, "online": online}
        return json.dumps(state, ensure_ascii=False).encode()

    # --- Called by the client, on its thread ---

    def _on_connect(
        self, client: paho.Client, _: Any, __: paho.ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._lose(client, str(reason))
            return
        client.publish(self.state_topic, self._state(True), qos=1, retain=True)
        with self._changed:
            self._connected, self._error = True, ""
            self._largest = getattr(properties, "MaximumPacketSize", None)
            self._changed.notify_all()

    def _on_disconnect(
        self, client: paho.Client, _: Any, __: paho.DisconnectFlags, reason: ReasonCode, ___: Properties | None
    ) -> None:
        self._lose(client, LOST if reason.value in (0, 128) else str(reason))

    def _on_publish(self, _: paho.Client, __: Any, mid: int, reason: ReasonCode, ___: Properties) -> None:
        with self._changed:
            self._acknowledged[mid] = reason
            self._changed.notify_all()

    def _lose(self, client: paho.Client, error: str) -> None:
        with self._changed:
            # What the broker said when it refused is worth more than that the connection then ended.
            self._error = error if self._connected or not self._error else self._error
            self._connected = False
            if self._opening or self._under_way:
                # The client must not come back by itself: it would send again what `send` is told to send again.
                client.loop_stop()
            self._changed.notify_all()


class _OlderBrokerError(SinkError):
    """A broker that speaks no MQTT 5."""


def topic_level(station: str) -> str:
    """The name of a station as one level of a topic.

    Args:
        station: Its name.

    Returns:
        The same without what separates levels, stands for others, or is no text.
    """
    return re.sub(r"[+#/\x00-\x1f\x7f-\x9f\ud800-\udfff]", "_", station)


def _reset(client: paho.Client) -> None:
    """Have the system throw away what has been written and not left yet: it would arrive after it was sent again."""
    connection = client.socket()
    if not isinstance(connection, socket.socket):
        return
    # Windows has two short numbers there.
    linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.shutdown(socket.SHUT_RDWR)
