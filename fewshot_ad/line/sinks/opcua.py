"""The last verdict on an OPC UA server, for control systems that read: nodes of the verdict, and counters."""

from __future__ import annotations

import datetime
import hmac
import logging
import math
import os
import re
import socket
from collections import Counter
from pathlib import Path
from typing import Any, TypeAlias

from fewshot_ad.errors import StationError
from fewshot_ad.line.record import Record, RecordVerdict
from fewshot_ad.line.settings import ListenEntry, OpcuaEntry, read_secret
from fewshot_ad.line.sinks.loop import LoopThread
from fewshot_ad.line.sinks.sink import SinkError
from fewshot_ad.storage import write_atomically, write_failure

try:
    from asyncua import Server, ua
    from asyncua.common.connection import TransportLimits
    from asyncua.common.utils import ServiceError
    from asyncua.crypto import cert_gen
    from asyncua.crypto.permission_rules import SimpleRoleRuleset, User, UserRole
    from asyncua.server.internal_server import InternalServer
    from asyncua.server.user_managers import UserManager
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    raise SinkError("an OPC UA server needs the package asyncua: pip install 'fewshot-ad[line]'.") from error

logger = logging.getLogger(__name__)

# A private key, and the certificate of its public one.
Identity: TypeAlias = tuple[rsa.RSAPrivateKey, x509.Certificate]

NAMESPACE = "urn:fewshot-ad:station"
PATH = "/fewshot-ad/"
# What OPC UA has for "no time".
NO_TIME = datetime.datetime(1601, 1, 1, tzinfo=datetime.timezone.utc)
# The nodes of a record in the order in which they are set: the last one tells that all others are.
NODES: dict[str, tuple[ua.VariantType, Any]] = {
    "Verdict": (ua.VariantType.String, ""),
    "IsGood": (ua.VariantType.Boolean, False),
    "Score": (ua.VariantType.Double, math.nan),
    "Threshold": (ua.VariantType.Double, math.nan),
    "Severity": (ua.VariantType.Double, math.nan),
    "Product": (ua.VariantType.String, ""),
    "Time": (ua.VariantType.DateTime, NO_TIME),
    "RecordId": (ua.VariantType.String, ""),
}
COUNTERS: dict[RecordVerdict, str] = {
    "good": "Good",
    "review": "Review",
    "anomalous": "Anomalous",
    "not_inspectable": "NotInspectable",
    "unreadable": "Unreadable",
}
# Bytes of a request, and open connections, at most: a control system needs little, and this computer has more to do.
MESSAGE_BYTES, BUFFER_BYTES, CONNECTIONS = 4_000_000, 65_535, 50
CERTIFICATE_DAYS = 3650
# The name in the certificates that a station makes: none but these is replaced.
OURS = "fewshot-ad"
# What would change something on the server. Its nodes are read-only anyway.
_CHANGES = (
    ua.NodeId(ua.ObjectIds.WriteRequest_Encoding_DefaultBinary),
    ua.NodeId(ua.ObjectIds.CallRequest_Encoding_DefaultBinary),
)


class OpcuaSink:
    """An OPC UA server at opc.tcp://HOST:PORT/fewshot-ad/ with the last record and counters, which clients only read.

    Below Objects lies Station, in the namespace `urn:fewshot-ad:station`, with the nodes of `NODES` and Counters. What
    a record does not have is NaN. RecordId is set last: who watches it, and then reads all nodes in one request, reads
    those of one record. Counters begin at 0 with the station.

    With a username, the server has a certificate that it has signed itself, so that no password crosses the network in
    the clear; encrypted connections (Basic256Sha256, Aes256Sha256RsaPss) are offered beside open ones. It lies in
    `identity_file`, so that clients trust it once; without one it is new at each start.

    Args:
        entry: Where it listens, and whom it lets in.
        station: Name of the station.

    Raises:
        StationError: Other computers could read it without a password, or the password cannot be read.
    """

    name = "opcua"
    replays = False

    def __init__(self, entry: OpcuaEntry, station: str) -> None:
        if entry.username is None and not ListenEntry.model_validate({"host": entry.host}).is_local:
            raise StationError(
                f"expected opcua.username and opcua.password_file, since {entry.host} can be reached from other "
                "computers, got none. Name both, or listen on 127.0.0.1."
            )
        if (entry.username is None) != (entry.password_file is None):
            missing = "username" if entry.username is None else "password_file"
            raise StationError(f"expected opcua.username together with opcua.password_file, got no {missing}.")
        self._entry, self._station = entry, station
        self._password = read_secret(entry.password_file, "the password of the OPC UA server")
        self._loop: LoopThread | None = None
        self._server: Server | None = None
        self._nodes: dict[str, ua.NodeId] = {}
        self._counts: Counter[str] = Counter()

    def open(self) -> None:
        """Listen.

        Raises:
            SinkError: The port is taken, or the address is not this computer's.
        """
        host, port = self._entry.host, self._entry.port
        try:
            # Before a server is made, which takes a second of one core and is for nothing where it cannot listen.
            socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
            self._loop = LoopThread("fewshot-ad-opcua-server")
            self._loop.run(self._start())
        except OSError as error:
            raise SinkError(
                f"expected to listen on {host}:{port} for OPC UA, cannot: {error}. End what uses the port, or name "
                "another host or port."
            ) from error

    def send(self, record: Record) -> None:
        """Set all nodes to a record.

        Args:
            record: It.

        Raises:
            SinkError: The server does not run.
        """
        if self._loop is None or self._server is None:
            raise SinkError("expected an OPC UA server that runs, got none. Open it first.")
        counts = self._counts + Counter(("Total", COUNTERS[record.verdict]))
        self._loop.run(self._set(self._server, record, counts))
        self._counts = counts

    def close(self) -> None:
        """End the server."""
        loop, self._loop = self._loop, None
        server, self._server = self._server, None
        if loop is not None:
            loop.close(None if server is None else server.stop())

    async def _start(self) -> None:
        entry = self._entry
        server = Server(iserver=_NoDirectory(_Users(entry.username, self._password)))
        server.name, server.manufacturer_name, server.product_uri = (
            f"fewshot-ad {self._station}",
            "fewshot-ad",
            NAMESPACE,
        )
        server.limits = TransportLimits(
            BUFFER_BYTES, BUFFER_BYTES, max_chunk_count=MESSAGE_BYTES // BUFFER_BYTES, max_message_size=MESSAGE_BYTES
        )
        server.iserver.max_connections = CONNECTIONS
        await server.init()
        server.allow_remote_admin(False)
        # Every server has an address of its own; letters that none may hold become _.
        address = f"urn:fewshot-ad:server:{re.sub(r'[^A-Za-z0-9._-]', '_', self._station)}"
        await server.set_application_uri(address)
        host = f"[{entry.host}]" if ":" in entry.host else entry.host
        server.set_endpoint(f"opc.tcp://{host}:{entry.port}{PATH}")
        server.socket_address = (entry.host, entry.port)
        policies = [ua.SecurityPolicyType.NoSecurity]
        if entry.username is None:
            server.set_identity_tokens([ua.AnonymousIdentityToken])
        else:
            server.set_identity_tokens([ua.UserNameIdentityToken])
            await _certify(server, address, entry.identity_file)
            policies.append(ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt)
            policies.append(ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt)
        server.set_security_policy(policies, _ReadOnly())
        await self._add_nodes(server)
        await server.start()
        self._server = server

    async def _add_nodes(self, server: Server) -> None:
        space = await server.register_namespace(NAMESPACE)
        objects = server.get_objects_node()
        station = await objects.add_object(ua.NodeId("Station", space), ua.QualifiedName("Station", space))
        counters = await station.add_object(ua.NodeId("Counters", space), ua.QualifiedName("Counters", space))
        for name, (kind, value) in NODES.items():
            self._nodes[name] = ua.NodeId(name, space)
            await station.add_variable(self._nodes[name], ua.QualifiedName(name, space), value, kind)
        for name in ("Total", *COUNTERS.values()):
            self._nodes[name] = ua.NodeId(f"Counters.{name}", space)
            await counters.add_variable(
                self._nodes[name], ua.QualifiedName(name, space), self._counts[name], ua.VariantType.UInt32
            )

    async def _set(self, server: Server, record: Record, counts: Counter[str]) -> None:
        values = {
            "Verdict": record.verdict,
            "IsGood": record.is_good,
            "Score": _number(record.score),
            "Threshold": _number(record.threshold),
            "Severity": _number(record.severity),
            "Product": record.product,
            "Time": record.time,
            "RecordId": record.id,
        }
        variants = {name: ua.Variant(counts[name], ua.VariantType.UInt32) for name in ("Total", *COUNTERS.values())}
        variants |= {name: ua.Variant(values[name], kind) for name, (kind, _) in NODES.items()}
        for name, variant in variants.items():
            value = ua.DataValue(variant, SourceTimestamp=record.time)
            await server.write_attribute_value(self._nodes[name], value)


class _Users(UserManager):
    """Lets in who knows name and password, or everybody where there are none."""

    def __init__(self, username: str | None, password: str | None) -> None:
        self._known = None if username is None else f"{username}\0{password}".encode()

    def get_user(
        self, iserver: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        if self._known is None:
            return User(UserRole.User)
        given = f"{username}\0{password}".encode("utf-8", "replace")
        return User(UserRole.User, username) if hmac.compare_digest(given, self._known) else None


class _NoDirectory(InternalServer):
    """Lets nobody enter other servers here, which asyncua lets anybody, to be told to clients without a login."""

    def register_server(self, server: Any, conf: Any = None) -> None:
        raise ServiceError(ua.StatusCodes.BadServiceUnsupported)


class _ReadOnly(SimpleRoleRuleset):
    def check_validity(self, user: User, action_type_id: ua.NodeId, body: Any) -> bool:
        return action_type_id not in _CHANGES and super().check_validity(user, action_type_id, body)


async def _certify(server: Server, address: str, identity_file: str | None) -> None:
    """Give a server its key and certificate: those in a file, or new ones, which are written there."""
    path = None if identity_file is None else Path(identity_file)
    identity = None if path is None else _read_identity(path, address)
    key, certificate = identity or _new(address)
    pem = cert_gen.dump_private_key_as_pem(key)
    if path is not None and identity is None:
        _keep(path, pem + certificate.public_bytes(Encoding.PEM))
    await server.load_certificate(certificate.public_bytes(Encoding.DER))
    await server.load_private_key(pem, format="pem")


def _read_identity(path: Path, address: str) -> Identity | None:
    """Key and certificate of a file; None where there are none, or none that clients would still take."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SinkError(f"{path}: expected the key of the OPC UA server, cannot read it ({error.strerror}).") from error
    if not data:
        return None
    try:
        key, certificate = load_pem_private_key(data, None), x509.load_pem_x509_certificate(data)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise SinkError(
            f"{path}: expected the key and the certificate of the OPC UA server, got something else. Name another "
            "identity_file, or remove that one for a new one."
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.public_key() != certificate.public_key():
        raise SinkError(f"{path}: expected an RSA key and its certificate, got others. Remove that file for new ones.")
    now = datetime.datetime.now(datetime.timezone.utc)
    if now < certificate.not_valid_after_utc and address in names.get_values_for_type(x509.UniformResourceIdentifier):
        return key, certificate
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if certificate.issuer != certificate.subject or OURS not in [name.value for name in common]:
        raise SinkError(
            f"{path}: expected a certificate of {address} that has not expired, got another one. Renew it, or name "
            "another identity_file, which the station makes itself."
        )
    logger.warning("%s: the certificate has expired, or is of another station: a new one is made, to be trusted", path)
    return None


def _keep(path: Path, pem: bytes) -> None:
    """Write what clients know the server by, for its owner alone; a server that cannot goes on without."""
    try:
        # The mode of what is there would be kept.
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        write_atomically(path, pem)
    except OSError as error:
        logger.warning("%s Clients must trust the server anew at each start.", write_failure(path, error))


def _new(address: str) -> Identity:
    """A key, and a certificate that is signed with it."""
    key = cert_gen.generate_private_key()
    certificate = cert_gen.generate_self_signed_app_certificate(
        key,
        OURS,
        {},
        [x509.UniformResourceIdentifier(address)],
        [ExtendedKeyUsageOID.SERVER_AUTH],
        CERTIFICATE_DAYS,
    )
    return key, certificate


def _number(value: float | None) -> float:
    return math.nan if value is None else value
