"""A page on this machine on which a region of interest is drawn; it is served until something is saved or canceled.

Nothing but the loopback interface is listened on. The address holds a random word, so that no other page in the browser
can guess it, and requests that name another host are refused.
"""

from __future__ import annotations

import json
import secrets
import threading
import webbrowser
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from typing import Any

# Bytes of what the page may send: corners of shapes.
MAX_BODY = 1_000_000
# A page whose browser has gone away must not hold the server.
TIMEOUT_S = 10


def draw_region(
    png: bytes, image_hw: tuple[int, int], say: Callable[[str], None], *, open_browser: bool, port: int = 0
) -> dict[str, list[Any]] | None:
    """Let someone draw on an image.

    Args:
        png: The image, as a PNG file.
        image_hw: Height and width in pixels that corners are told in.
        say: Called with the page's address.
        open_browser: Whether the page is opened in the browser of this machine.
        port: Of the page; 0 takes a free one.

    Returns:
        `roi` and `ignore`, polygons of (x, y) each; None where it was canceled.

    Raises:
        OSError: The port cannot be listened on.
    """
    word, results = secrets.token_urlsafe(16), list[dict[str, Any]]()
    page = Template(Path(__file__).with_name("drawing_page.html").read_text("utf-8"))
    files = {
        "": ("text/html; charset=utf-8", page.substitute(width=image_hw[1], height=image_hw[0]).encode()),
        "image.png": ("image/png", png),
    }
    with _Server(("127.0.0.1", port), partial(_Handler, word, files, results)) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/{word}/"
        say(f"draw the region at {address} (on this machine; Ctrl-C ends without a change)")
        if open_browser:
            # A browser of the terminal returns only when it is left.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        while not results:
            server.handle_request()
    return results[0] or None


class _Server(ThreadingHTTPServer):
    # So that a result, which comes on another thread, is noticed; and no connection that says nothing holds the others.
    timeout, daemon_threads, block_on_close = 0.2, True, False

    def handle_error(self, *_: Any) -> None:
        """A browser that went away is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_S

    def __init__(
        self, word: str, files: Mapping[str, tuple[str, bytes]], results: list[dict[str, Any]], *request: Any
    ) -> None:
        self._word, self._files, self._results = word, files, results
        super().__init__(*request)

    def do_GET(self) -> None:
        name = self._name()
        if name is None or name not in self._files:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"There is nothing here.")
        else:
            self._answer(HTTPStatus.OK, *self._files[name])

    def do_POST(self) -> None:
        if self._name() != "result":
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"There is nothing here.")
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
            drawn = _shapes(json.loads(self.rfile.read(length))) if 0 <= length <= MAX_BODY else None
        except (ValueError, RecursionError):
            drawn = None
        if drawn is None:
            self._answer(HTTPStatus.BAD_REQUEST, "text/plain", b"Expected shapes of at least three corners each.")
            return
        self._results.append(drawn)
        self._answer(HTTPStatus.OK, "text/plain", b"saved")

    def _name(self) -> str | None:
        """What is asked for, without the random word; None for what does not know it, or asks another host."""
        host, start = self.headers.get("Host", "").rsplit(":", 1)[0], f"/{self._word}/"
        known = host in ("127.0.0.1", "localhost") and self.path.startswith(start)
        return self.path[len(start) :] if known else None

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        policy = "default-src 'none'; img-src 'self'; connect-src 'self'; script-src 'unsafe-inline'"
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", f"{policy}; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal for each request."""


def _shapes(sent: Any) -> dict[str, list[Any]] | None:
    """What the page sent, if it is that: polygons of at least three corners; an empty mapping where it was canceled."""
    if sent == {}:
        return {}
    if not isinstance(sent, dict) or {*sent} != {"roi", "ignore"}:
        return None
    for shapes in sent.values():
        if not isinstance(shapes, list) or not all(isinstance(shape, list) and len(shape) > 2 for shape in shapes):
            return None
        corners = [corner for shape in shapes for corner in shape]
        if not all(isinstance(corner, list) and len(corner) == 2 for corner in corners):
            return None
        if not all(isinstance(v, int | float) and abs(v) < 1e6 for corner in corners for v in corner):
            return None
    return sent if any(sent.values()) else None
