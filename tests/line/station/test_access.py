"""Who may talk to a station: this computer's own names, its own page, who has the token; and how much, how fast."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.conftest import make_part
from tests.line.conftest import png
from tests.line.station.conftest import MakeClient

PNG = {"content-type": "image/png"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8470", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("192.168.7.7:8470", 200),
        ("[::1]:8470", 200),
        ("line3.plant", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
        ("[::", 421),
        ("a@127.0.0.1@evil.example", 421),
    ],
)
def test_other_names_than_its_own_are_refused(make_client: MakeClient, host: str, status: int) -> None:
    client = make_client(listen={"names": ["line3.plant"]})
    assert client.get("/api/products", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8470"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_another_sites_page_can_change_nothing(make_client: MakeClient, headers: dict, status: int) -> None:
    client = make_client()
    answer = client.post("/api/inspect", content=png(make_part(1)), headers={**PNG, **headers})
    assert answer.status_code == status


def test_the_token_opens_and_nothing_else_does(make_client: MakeClient, tmp_path) -> None:
    (tmp_path / "token").write_text("secret")
    client = make_client("secret", listen={"token_file": "token"})
    for path in ("/api/products", "/metrics", "/api/health", "/api/openapi.json", "/nothing"):
        assert client.get(path).status_code == 401, path
        assert client.get(path, headers={"authorization": "Bearer guess"}).status_code == 401
        assert client.get(path, headers={"authorization": "Basic secret"}).status_code == 401
        assert client.get(path, headers={"authorization": "Bearer secret"}).status_code in (200, 404)
    for path in ("/", "/healthz"):
        assert client.get(path).status_code == 200
    assert client.get("/api/session").json() == {"needed": True, "open": False}
    assert client.post("/api/session", json={"token": "guess"}).status_code == 401
    assert client.get("/api/products").status_code == 401
    answer = client.post("/api/session", json={"token": "secret"})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.casefold()
    assert "secret" not in cookie
    assert client.get("/api/products").status_code == 200
    assert client.get("/api/session").json() == {"needed": True, "open": True}
    client.delete("/api/session")
    assert client.get("/api/products").status_code == 401


def test_what_is_too_large_is_refused_before_it_is_all_there(make_client: MakeClient) -> None:
    client = make_client(limits={"image_mb": 0.05, "megapixels": 0.01})
    big = b"\x89PNG" + bytes(60_000)
    assert client.post("/api/inspect", content=big, headers=PNG).status_code == 413
    assert client.post("/api/inspect", files={"image": ("a.png", big)}).status_code == 413
    assert client.post("/api/inspect", content=bytes(2_000_000), headers=PNG).status_code == 413
    assert client.post("/api/session", content=bytes(2_000_000)).status_code == 413
    too_many_pixels = client.post("/api/inspect", content=png(make_part(1)), headers=PNG)
    assert too_many_pixels.status_code == 422
    assert "0.01 megapixels" in too_many_pixels.json()["error"]


def test_a_slow_sender_is_sent_away_and_makes_room(make_client: MakeClient) -> None:
    client = make_client(limits={"upload_s": 1.5, "queue": 1})

    async def slow() -> AsyncIterator[bytes]:
        yield b"\x89PNG"
        await asyncio.sleep(5)
        yield b"rest"

    async def send() -> int:
        transport = httpx.ASGITransport(app=client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8470") as sender:
            return (await sender.post("/api/inspect", content=slow(), headers=PNG)).status_code

    assert asyncio.run(send()) == 408
    assert client.post("/api/inspect", content=png(make_part(1)), headers=PNG).status_code == 200


def test_too_many_images_are_too_many(make_client: MakeClient) -> None:
    client = make_client(limits={"images": 2})
    files = [("images", (f"{n}.png", png(make_part(n)), "image/png")) for n in range(3)]
    assert client.post("/api/products/x", files=files).status_code == 413
