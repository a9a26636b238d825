"""Who may talk to a station, and how much: host names, origins, the token, the size and the pace of what is sent."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fewshot_ad.line.settings import LimitsEntry, ListenEntry

COOKIE = "fewshot_ad_session"
# What may be had without the token: whether the station is alive, the page itself, which holds nothing, and the way in.
OPEN = re.compile(r"/|/healthz|/page/[\w./-]+|/api/session")
# A guess at the token costs so long.
WRONG_TOKEN_S = 0.5
# Of what is no image, in bytes.
SMALL_BODY = 1_000_000
# Several images at once may take so many times as long to be sent as one.
MANY = 15
_INSPECTING = re.compile(r"/api/inspect|/api/products/[^/]+/(inspect|accept|reject)")
_TEACHING = re.compile(r"/api/products/[^/]+(/(check|calibrate))?")
_SAFE = {"GET", "HEAD", "OPTIONS"}
# The page loads from this station only, and nothing else may show it or be sent to from it.
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}


class Access:
    """The outermost layer of the application: lets through whom it should.

    A page of another site, open in a browser on the same network, can neither read from the station nor make it do
    something: its requests have another host, another origin, or no token.

    Args:
        app: What is let through to.
        listen: Where the station listens.
        limits: What is refused.
        token: What callers must know; None lets everybody in who reaches it.
    """

    def __init__(self, app: ASGIApp, *, listen: ListenEntry, limits: LimitsEntry, token: str | None) -> None:
        self._app, self._limits, self._token = app, limits, token
        self._names = {"localhost", listen.host.casefold(), *(name.casefold() for name in listen.names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            status, message = refusal
            if status == 401:
                tried = "authorization" in headers or COOKIE in headers.get("cookie", "")
                await asyncio.sleep(WRONG_TOKEN_S if tried else 0)
            response = error_response(status, message)
            await response(scope, receive, _with_headers(send))
            return
        await self._app(scope, self._limited(scope, receive), _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._is_own(host):
            return 421, (
                f"expected a request to this station, got one to {host[:100]!r}. Call it by its address, or put the "
                "name into listen.names of its settings."
            )
        if scope["method"] not in _SAFE and not _same_origin(headers, host):
            return 403, "expected a request from this station's own page, got one from another site."
        if OPEN.fullmatch(scope["path"]) or knows_token(headers, self._token):
            return None
        return 401, "expected the station's token (Authorization: Bearer TOKEN), got none or another one."

    def _is_own(self, host: str) -> bool:
        """Whether a host is this computer's: a name it has, or any address, which no other site can have."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").casefold()
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return True

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """The same body, refused once it is too long or comes too slowly."""
        path, limits = scope["path"], self._limits
        most, seconds = SMALL_BODY, limits.upload_s
        if _INSPECTING.fullmatch(path):
            # Of a form, a little more than the image.
            most = int(limits.image_mb * 1e6) + SMALL_BODY
        elif _TEACHING.fullmatch(path):
            most, seconds = int(limits.upload_mb * 1e6), MANY * limits.upload_s
        taken, deadline, complete = 0, time.monotonic() + seconds, False

        async def limited() -> Message:
            nonlocal taken, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.001, deadline - time.monotonic()))
            except asyncio.TimeoutError:
                raise HTTPException(
                    408,
                    f"expected all of it within {seconds:g} s, got {taken:,} bytes. Send it faster, or raise limits.",
                ) from None
            taken += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if taken > most:
                raise HTTPException(413, f"expected at most {most:,} bytes, got more. Send a smaller image, or fewer.")
            return message

        return limited


def knows_token(headers: Headers, token: str | None) -> bool:
    """Whether a request has the token, or a session that was opened with it; where none is needed, always."""
    if token is None:
        return True
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.casefold() == "bearer" and same(given.strip(), token):
        return True
    return same(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""), session_of(token))


def same(given: str, expected: str) -> bool:
    """Whether two secrets are the same, in a time that does not tell how alike they are."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def session_of(token: str) -> str:
    """What a browser keeps in place of the token: it does not lead back to it."""
    return hmac.new(token.encode(), b"fewshot-ad session 1", hashlib.sha256).hexdigest()


def error_response(status: int, message: str, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
    """An error in the form that the commands have, docs/reference/schemas/error.json."""
    return JSONResponse({"schema": "fewshot-ad/error/1", "error": message, **more}, status, headers)


def _same_origin(headers: Headers, host: str) -> bool:
    """Whether a request comes from this station's page, or from no page at all."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == host
    except ValueError:
        return False


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return with_headers


def merged(responses: Iterable[int]) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides its own answer, for OpenAPI."""
    words = {
        400: "The request cannot be read.",
        401: "The token is missing.",
        404: "There is no such thing.",
        408: "It was sent too slowly.",
        409: "It contradicts what is there.",
        413: "It is too large.",
        415: "It is of a kind that is not taken.",
        421: "It is for another host.",
        403: "It comes from another site.",
        422: "What was sent cannot be used, and why.",
        500: "A file of the station is damaged.",
        503: "Too much waits: send it again after the seconds in Retry-After.",
        507: "It could not be written down: the disk is full.",
    }
    schema = {"$ref": "#/components/schemas/Failure"}
    return {
        status: {"description": words[status], "content": {"application/json": {"schema": schema}}}
        for status in sorted({400, 401, 403, 408, 413, 421, 422, *responses})
    }
