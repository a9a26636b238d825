"""Verdicts sent to an address: a POST of JSON for each record, signed, and tried again until it is answered."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import re
import time
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from fewshot_ad.errors import StationError
from fewshot_ad.line.record import Record
from fewshot_ad.line.settings import WebhookEntry, read_secret
from fewshot_ad.line.sinks.sink import RefusedError, SinkError

ID, TIMESTAMP, SIGNATURE = "X-Fewshot-Ad-Id", "X-Fewshot-Ad-Timestamp", "X-Fewshot-Ad-Signature"
# Answers besides 5xx that say "not now": the time ran out, too early, too many.
LATER = (408, 425, 429)
# Bytes of an answer that are told when it is a refusal.
TOLD = 200


class WebhookSink:
    """Sends every record to an address.

    An answer 2xx means that it was taken. Who answers 408, 425, 429 or 5xx, or not at all, is asked again, with pauses
    that become longer; any other answer is a refusal, and the record is passed over. No redirect is followed, since it
    would lead the signed record somewhere else, and no proxy is used.

    Args:
        entry: Which address.

    Raises:
        StationError: The secret cannot be read, or the address holds a password.
    """

    replays = True

    def __init__(self, entry: WebhookEntry) -> None:
        parts = urlsplit(entry.url)
        if parts.username is not None or parts.password is not None:
            raise StationError(
                f"expected the address of a webhook without a password, got one for {parts.hostname}. Have requests "
                "signed instead: `secret_file`."
            )
        try:
            port = parts.port
        except ValueError as error:
            raise StationError(f"expected the port of a webhook from 0 to 65535, got {entry.url!r}.") from error
        self.name = f"webhook:{entry.name or parts.hostname}"
        self._entry = entry
        self._secret = read_secret(entry.secret_file, "the secret of a webhook")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname or "", port
        query = f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
        self._path = quote(parts.path or "/", safe=_SAFE) + query

    def open(self) -> None:
        """Nothing: each record has a connection of its own, since minutes may lie between two."""

    def send(self, record: Record) -> None:
        """Send a record, and wait for the answer.

        Args:
            record: It; one with a verdict that was not asked for is passed over.

        Raises:
            SinkError: There is no answer, or it says that it is to be tried again.
            RefusedError: The answer says that it never will be taken.
        """
        if self._entry.verdicts and record.verdict not in self._entry.verdicts:
            return
        body = record.to_json().encode()
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "fewshot-ad",
            "Connection": "close",
            "Idempotency-Key": record.id,
            ID: record.id,
            TIMESTAMP: timestamp,
        }
        if self._secret is not None:
            headers[SIGNATURE] = signature(self._secret, timestamp, body)
        status, said = self._post(body, headers)
        if 200 <= status < 300:
            return
        kind: type[SinkError] = SinkError if status in LATER or status >= 500 else RefusedError
        raise kind(f"expected {self.name} to answer 2xx, got {status}: {said or '(nothing)'}")

    def close(self) -> None:
        """Nothing."""

    def _post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """Status and beginning of the answer."""
        connection = self._kind(self._host, self._port, timeout=self._entry.timeout_s)
        try:
            connection.request("POST", self._path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read(TOLD).decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SinkError(
                f"expected an answer of {self.name} within {self._entry.timeout_s:g} s, got none: "
                f"{error or type(error).__name__}. Check the address, the network, and that the receiver runs."
            ) from error
        finally:
            connection.close()


# What may stand in an address as it is, % among it: the rest of it is quoted already.
_SAFE = "/%:=&?~+!$,;'@()*[]"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What the header X-Fewshot-Ad-Signature says.

    Args:
        secret: What both sides know.
        timestamp: As in the header X-Fewshot-Ad-Timestamp, seconds since 1970.
        body: Of the request.

    Returns:
        `sha256=` and the HMAC-SHA256 of timestamp, a point and body, in hexadecimal digits.
    """
    return f"sha256={hmac.new(secret.encode(), timestamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


def verify(secret: str, headers: Mapping[str, str], body: bytes, tolerance_s: float = 300.0) -> bool:
    """Whether a request comes from who knows the secret, and is not an old one that somebody repeats; for receivers.

    Args:
        secret: What both sides know: the first line of `secret_file`, without spaces around it.
        headers: Of the request; upper and lower case are the same.
        body: Of the request, as it came.
        tolerance_s: Seconds that the clocks may differ, and a request may take.

    Examples:
        >>> body = b'{"verdict": "good"}'
        >>> now = str(int(time.time()))
        >>> headers = {"X-Fewshot-Ad-Timestamp": now, "X-Fewshot-Ad-Signature": signature("secret", now, body)}
        >>> verify("secret", headers, body)
        True
        >>> verify("another", headers, body)
        False
    """
    found = {name.lower(): value for name, value in headers.items()}
    timestamp = found.get(TIMESTAMP.lower(), "")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > tolerance_s:
        return False
    # The same time whatever differs, so that nobody finds the signature out letter by letter.
    return hmac.compare_digest(
        signature(secret, timestamp, body).encode(), found.get(SIGNATURE.lower(), "").encode("utf-8", "replace")
    )
