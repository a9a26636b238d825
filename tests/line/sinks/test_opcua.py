"""A control system reads the last record from a real OPC UA server, all of it of one record, and changes nothing."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fewshot_ad.errors import StationError
from fewshot_ad.line.settings import OpcuaEntry
from fewshot_ad.line.sinks import SinkError
from tests.line.sinks.helpers import free_port, record_of

asyncua = pytest.importorskip("asyncua", reason="NO OPC UA: pip install 'fewshot-ad[line]'")
opcua = pytest.importorskip("fewshot_ad.line.sinks.opcua")
ua = asyncua.ua

NAMES = [*opcua.NODES, "Counters.Total", *(f"Counters.{name}" for name in opcua.COUNTERS.values())]
READ_ONLY = (ua.uaerrors.BadUserAccessDenied, ua.uaerrors.BadNotWritable)


class Reader:
    """A control system that is connected."""

    def __init__(self, client: Any, space: int) -> None:
        self.client, self._space = client, space

    def node(self, name: str) -> Any:
        return self.client.get_node(ua.NodeId(name, self._space))

    async def values(self) -> dict[str, Any]:
        """All nodes in one request."""
        return dict(zip(NAMES, await self.client.read_values([self.node(name) for name in NAMES]), strict=True))


def reading(port: int, work: Callable[[Reader], Awaitable[Any]], *, policy: str = "", **login: str) -> Any:
    async def connect() -> Any:
        client = asyncua.Client(f"opc.tcp://127.0.0.1:{port}/fewshot-ad/", timeout=10)
        if login:
            client.set_user(login["username"])
            client.set_password(login["password"])
        if policy:
            await client.set_security_string(policy)
        async with client:
            return await work(Reader(client, await client.get_namespace_index("urn:fewshot-ad:station")))

    return asyncio.run(connect())


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Any, int]]:
    port = free_port()
    server = opcua.OpcuaSink(OpcuaEntry.model_validate({"port": port}), "press 3")
    server.open()
    yield server, port
    server.close()


def test_the_last_record_and_the_counters_are_read(served: tuple[Any, int]) -> None:
    server, port = served
    before = reading(port, Reader.values)
    server.send(record_of("good"))
    anomalous = record_of("anomalous")
    server.send(anomalous)
    found = reading(port, Reader.values)
    shown = {name: found[name] for name in opcua.NODES}
    assert shown == {
        "Verdict": "anomalous",
        "IsGood": False,
        "Score": 0.5,
        "Threshold": 1.25,
        "Severity": 0.4,
        "Product": "bracket",
        "Time": anomalous.time,
        "RecordId": anomalous.id,
    }
    more = {name: found[name] - before[name] for name in NAMES if name.startswith("Counters.")}
    assert {name: count for name, count in more.items() if count} == {
        "Counters.Total": 2,
        "Counters.Good": 1,
        "Counters.Anomalous": 1,
    }
    server.send(record_of("unreadable", product=""))
    found = reading(port, Reader.values)
    assert found["Verdict"] == "unreadable"
    assert all(math.isnan(found[name]) for name in ("Score", "Threshold", "Severity"))


def test_a_client_that_watches_the_id_reads_all_of_one_record(served: tuple[Any, int]) -> None:
    server, port = served
    records = [record_of(("good", "anomalous")[n % 2], score=float(n), product=f"product {n}") for n in range(40)]
    by_id = {record.id: record for record in records}
    told: list[str] = []

    class Handler:
        def datachange_notification(self, _: Any, value: str, __: Any) -> None:
            told.append(value)

    async def watch(reader: Reader) -> list[dict[str, Any]]:
        subscription = await reader.client.create_subscription(10, Handler())
        await subscription.subscribe_data_change(reader.node("RecordId"))
        found: list[dict[str, Any]] = []

        async def send() -> None:
            for record in records:
                await asyncio.to_thread(server.send, record)

        sending = asyncio.create_task(send())
        while not sending.done():
            found.append(await reader.values())
        await sending
        while records[-1].id not in told:
            await asyncio.sleep(0.01)
        found.append(await reader.values())
        return found

    found = [values for values in reading(port, watch) if values["RecordId"] in by_id]
    assert found
    for values in found:
        record = by_id[values["RecordId"]]
        assert (values["Verdict"], values["Score"], values["Product"]) == (record.verdict, record.score, record.product)
    ids = [value for value in told if value in by_id]
    assert ids == sorted(ids)


def test_a_client_changes_nothing(served: tuple[Any, int]) -> None:
    server, port = served
    record = record_of("anomalous")
    server.send(record)

    async def change(reader: Reader) -> None:
        for name in NAMES:
            value = await reader.node(name).read_data_value()
            with pytest.raises(READ_ONLY):
                await reader.node(name).write_value(ua.DataValue(value.Value))
        with pytest.raises(READ_ONLY):
            await reader.client.nodes.objects.add_object(2, "Mine")
        with pytest.raises(READ_ONLY):
            await reader.client.delete_nodes([reader.node("Verdict")])
        with pytest.raises(READ_ONLY):
            await reader.client.nodes.server.call_method("0:GetMonitoredItems", ua.UInt32(1))

    reading(port, change)
    assert reading(port, Reader.values)["RecordId"] == record.id


def test_nobody_enters_a_server_of_their_own(served: tuple[Any, int]) -> None:
    _, port = served

    async def enter() -> list[Any]:
        client = asyncua.Client(f"opc.tcp://127.0.0.1:{port}/fewshot-ad/")
        await client.connect_sessionless()
        try:
            other = ua.RegisteredServer(ServerUri="urn:other", ServerNames=[ua.LocalizedText("Station")])
            with pytest.raises(ua.UaError):
                await client.uaclient.register_server(other)
            return await client.find_servers()
        finally:
            await client.disconnect_sessionless()

    assert [one.ApplicationUri for one in asyncio.run(enter())] == ["urn:fewshot-ad:server:press_3"]


def test_what_is_no_opc_ua_is_survived(served: tuple[Any, int]) -> None:
    server, port = served
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, b"HELF\xff\xff\xff\xff" + b"\xff" * 24):
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(sent)
    record = record_of()
    server.send(record)
    assert reading(port, Reader.values)["RecordId"] == record.id


def test_a_password_is_asked_for_and_does_not_cross_the_network(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse\n")
    port = free_port()
    entry = OpcuaEntry.model_validate(
        {"host": "0.0.0.0", "port": port, "username": "scada", "password_file": str(tmp_path / "password")}  # noqa: S104
    )
    server = opcua.OpcuaSink(entry, "press 3")
    server.open()
    record = record_of()
    try:
        server.send(record)
        right = {"username": "scada", "password": "correct horse"}
        assert reading(port, Reader.values, **right)["RecordId"] == record.id
        for login in ({}, {**right, "password": "wrong horse"}, {**right, "username": "admin"}):
            with pytest.raises((ua.uaerrors.BadUserAccessDenied, ua.uaerrors.BadIdentityTokenRejected, ua.UaError)):
                reading(port, Reader.values, **login)
        encrypted = client_certificate(tmp_path)
        assert reading(port, Reader.values, policy=f"Basic256Sha256,SignAndEncrypt,{encrypted}", **right)[
            "RecordId"
        ] == (record.id)
        endpoints = asyncio.run(endpoints_of(port))
        tokens = [token for endpoint in endpoints for token in endpoint.UserIdentityTokens]
        assert {token.TokenType for token in tokens} == {ua.UserTokenType.UserName}
        # Where the connection is open, the password is encrypted by itself.
        (opened,) = [one for one in endpoints if one.SecurityMode == ua.MessageSecurityMode.None_]
        assert opened.UserIdentityTokens[0].SecurityPolicyUri.endswith("Basic256Sha256")
    finally:
        server.close()


def test_clients_trust_it_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "password").write_text("correct horse\n")
    identity = tmp_path / "opcua.pem"

    def certificate(station: str = "press 3") -> bytes:
        port = free_port()
        entry = {"port": port, "username": "scada", "password_file": str(tmp_path / "password")}
        server = opcua.OpcuaSink(OpcuaEntry.model_validate({**entry, "identity_file": str(identity)}), station)
        server.open()
        try:
            (sent,) = {bytes(one.ServerCertificate) for one in asyncio.run(endpoints_of(port))}
            return sent
        finally:
            server.close()

    first = certificate()
    assert identity.stat().st_mode & 0o077 == 0
    assert certificate() == first
    # As a kill in the middle leaves it, and where somebody renames the station.
    identity.write_bytes(b"")
    second = certificate()
    assert second != first
    assert certificate("press 4") != second
    assert "of another station" in caplog.text
    # One that somebody else has made stays as it is, whatever its form, and is never replaced.
    theirs = asyncio.run(made_by_others(tmp_path))
    identity.write_bytes(theirs)
    assert certificate("press 5")
    assert identity.read_bytes() == theirs
    with pytest.raises(SinkError, match="Renew it"):
        certificate()
    assert identity.read_bytes() == theirs
    identity.write_text("my notes")
    with pytest.raises(SinkError, match="Name another identity_file"):
        certificate()
    assert identity.read_text() == "my notes"
    identity.unlink()
    identity.mkdir()
    with pytest.raises(SinkError, match="cannot read it"):
        certificate()


async def made_by_others(folder: Path) -> bytes:
    """The certificate and key of a server, as another program writes them: the certificate first."""
    from asyncua.crypto.cert_gen import setup_self_signed_certificate
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    key, certificate = folder / "theirs.pem", folder / "theirs.der"
    await setup_self_signed_certificate(key, certificate, "urn:fewshot-ad:server:press_5", "plant", [], {})
    return x509.load_der_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.PEM) + key.read_bytes()


def client_certificate(folder: Path) -> str:
    """Files of a client's certificate and key."""
    from asyncua.crypto.cert_gen import setup_self_signed_certificate

    certificate, key = folder / "client.der", folder / "client.pem"
    asyncio.run(setup_self_signed_certificate(key, certificate, "urn:client", "client", [], {}))
    return f"{certificate},{key}"


async def endpoints_of(port: int) -> list[Any]:
    return await asyncua.Client(f"opc.tcp://127.0.0.1:{port}/fewshot-ad/").connect_and_get_server_endpoints()


def test_it_can_be_closed_and_opened_again_and_counts_on() -> None:
    port = free_port()
    server = opcua.OpcuaSink(OpcuaEntry.model_validate({"port": port}), "press 3")
    server.close()
    with pytest.raises(SinkError, match="OPC UA server that runs"):
        server.send(record_of())
    server.open()
    server.send(record_of())
    server.close()
    assert not listens(port)
    server.open()
    assert reading(port, Reader.values)["Counters.Total"] == 1
    server.close()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = opcua.OpcuaSink(OpcuaEntry.model_validate({"port": port}), "press 3")
        with pytest.raises(SinkError, match=f"listen on 127.0.0.1:{port} for OPC UA"):
            server.open()
        server.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "box.plant"])  # noqa: S104
def test_others_are_let_in_only_with_a_password(host: str) -> None:
    with pytest.raises(StationError, match=r"expected opcua\.username and opcua\.password_file"):
        opcua.OpcuaSink(OpcuaEntry.model_validate({"host": host}), "press 3")


def test_a_name_without_a_password_is_no_login(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse\n")
    with pytest.raises(StationError, match="got no password_file"):
        opcua.OpcuaSink(OpcuaEntry.model_validate({"username": "scada"}), "press 3")
    with pytest.raises(StationError, match="got no username"):
        opcua.OpcuaSink(OpcuaEntry.model_validate({"password_file": str(tmp_path / "password")}), "press 3")
