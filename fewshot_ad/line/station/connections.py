"""Connections that send no request are ended, so that they cannot keep the others out."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# How long the head of a request may take to arrive: a browser opens a connection ahead of its need, and one to a box
# far away may lose a packet or two.
HEAD_S = 15.0


class Connection(H11Protocol):
    """A connection whose requests must begin in time.

    uvicorn waits forever for a first request, and for the rest of one that has begun; every such connection is one of
    the few that a station takes.
    """

    head_s = HEAD_S
    _seen: Any

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._waits_since, self._seen = self.loop.time(), None
        self._look = self.loop.call_later(self.head_s / 4, self._end_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._look.cancel()
        super().connection_lost(exc)

    def _end_if_silent(self) -> None:
        request: Any = self.cycle
        if request is not self._seen or (request is not None and not request.response_complete):
            # One that is answered now, or was since the last look.
            self._waits_since, self._seen = self.loop.time(), request
        if self.loop.time() - self._waits_since > self.head_s:
            self.transport.close()
            return
        self._look = self.loop.call_later(self.head_s / 4, self._end_if_silent)
