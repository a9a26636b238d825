from __future__ import annotations

import http.client
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from fewshot_ad.cli.drawing import draw_region
from fewshot_ad.inspector import Inspector
from tests.cli.commands import run
from tests.cli.schemas import check as check_schema
from tests.conftest import make_part


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("looking")
    (root / "good").mkdir()
    for seed in range(3):
        cv2.imwrite(str(root / "good" / f"{seed}.png"), make_part(seed, 96)[..., ::-1])
    cv2.imwrite(str(root / "bad.png"), make_part(20, 96, defect=True)[..., ::-1])
    enroll(root / "p.fsad", root)
    return root


def enroll(path: Path, root: Path, *options: str) -> tuple[int, str, str]:
    return run("enroll", root / "good", "-o", path, "--views", "none", "--image-size", "96", "--force", *options)


@pytest.fixture
def own(workplace: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(workplace / "p.fsad", tmp_path / "own.fsad"))


def test_a_region_from_the_first_day(workplace: Path, tmp_path: Path) -> None:
    code, out, err = enroll(tmp_path / "p.fsad", workplace, "--roi", "0,0,48,96", "--roi", "0,0 20,0 0,20")
    assert (code, err) == (0, "")
    assert "region of interest: 50% of the image, as it was drawn." in out
    code, out, _ = run("roi", tmp_path / "p.fsad")
    assert (code, out) == (0, "p: 50% of the image counts, within 0,0,48,96\n")
    assert run("inspect", tmp_path / "p.fsad", workplace / "bad.png")[0] == 0
    assert run("inspect", workplace / "p.fsad", workplace / "bad.png")[0] == 1
    assert run("inspect", workplace / "p.fsad", workplace / "bad.png", "--roi", "0,0,48,96")[0] == 0
    code, out, _ = enroll(tmp_path / "p.fsad", workplace, "--foreground", "auto")
    assert code == 0
    assert re.search("foreground: .* drawn defects stand out", out)


def test_narrowed_drawn_as_a_mask_and_taken_back(workplace: Path, own: Path, tmp_path: Path) -> None:
    before = own.read_bytes()
    code, out, _ = run("roi", own, "--polygon", "0,0 48,0 48,96 0,96", "--picture", tmp_path / "picture.png")
    assert code == 0
    assert "the threshold stays" in out
    picture = cv2.imread(str(tmp_path / "picture.png"))
    assert picture[48, 90].mean() < 0.6 * cv2.imread(str(workplace / "good" / "0.png"))[48, 90].mean()
    code, out, _ = run("roi", own, "--json")
    record = check_schema(out, "product")
    assert record["roi"]["box"][:2] == [0, 0]
    assert run("undo", own)[0] == 0
    assert own.read_bytes() == before
    mask = tmp_path / "mask.png"
    assert run("roi", own, "--ignore", "48,0,48,96", "--mask", mask)[0] == 0
    assert own.read_bytes() == before
    assert enroll(tmp_path / "p.fsad", workplace, "--roi", str(mask))[0] == 0
    assert Inspector.load(tmp_path / "p.fsad").info()["roi"]["box"] == [0, 0, 48, 96]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--roi", "1,2,3"), "expected X,Y,WIDTH,HEIGHT"),
        (("--roi", "1,2 3,4"), "expected X,Y,WIDTH,HEIGHT"),
        (("--roi", "a.png", "--roi", "1,1,40,40"), "one mask image alone"),
        (("--roi", "nowhere.png"), "does not exist"),
        (("--roi", "500,500,4,4"), "shows some of the image"),
        (("--draw", "--roi", "1,1,40,40"), "got both"),
        (("--mask", "m.png"), "got it alone"),
        (("--ignore", "0,0,96,96"), "shows some of the image"),
    ],
)
def test_what_is_no_region_leaves_the_file_alone(own: Path, options: tuple[str, ...], said: str) -> None:
    before = own.read_bytes()
    code, _, err = run("roi", own, *options)
    assert code == 2
    assert said in re.sub(r"\s+", " ", err.replace("│", " "))
    assert own.read_bytes() == before


@pytest.fixture
def page() -> Iterator[tuple[str, int, str, list[object]]]:
    """A page that is being served: host, port, path, and where its result comes."""
    told, results, ready = list[str](), list[object](), threading.Event()

    def say(text: str) -> None:
        told.append(text)
        ready.set()

    png = cv2.imencode(".png", np.zeros((48, 96, 3), np.uint8))[1].tobytes()
    thread = threading.Thread(
        target=lambda: results.append(draw_region(png, (96, 192), say, open_browser=False)), daemon=True
    )
    thread.start()
    assert ready.wait(10)
    url = urlsplit(re.search(r"http://\S+", told[0])[0])  # type: ignore[index]
    yield str(url.hostname), int(url.port or 0), url.path, results
    if not results:
        ask(str(url.hostname), int(url.port or 0), "POST", f"{url.path}result", b"{}")
    thread.join(10)
    assert not thread.is_alive()


def ask(host: str, port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_page_is_drawn_on_and_nothing_else_is_taken(page: tuple[str, int, str, list[object]]) -> None:
    host, port, path, results = page
    assert host == "127.0.0.1"
    status, html = ask(host, port, "GET", path)
    assert status == 200
    assert b"width: 192, height: 96" in html
    assert not re.search(rb"(src|href)=.?https?:", html)
    assert ask(host, port, "GET", f"{path}image.png")[1].startswith(b"\x89PNG")
    for guess in ("/", "/image.png", "/wrong/image.png", f"{path}../x", f"{path}result"):
        assert ask(host, port, "GET", guess)[0] == 404
    assert ask(host, port, "GET", path, Host="example.com")[0] == 404
    for body in (
        *(b"", b"[]", b"{", b"[" * 100_000, b'{"roi": [], "ignore": []}', b'{"roi": [[[1, 1]]], "ignore": []}'),
        *(b'{"roi": [[[1,1],[2,"a"],[3,3]]], "ignore": []}', b'{"roi": [[[1,1],[2,NaN],[3,3]]], "ignore": []}'),
    ):
        assert ask(host, port, "POST", f"{path}result", body)[0] == 400
    assert results == []
    drawn = {"roi": [[[1, 1], [90, 1], [90, 90.5]]], "ignore": []}
    assert ask(host, port, "POST", f"{path}result", json.dumps(drawn).encode())[0] == 200
    for _ in range(50):
        if results:
            break
        threading.Event().wait(0.1)
    assert results == [drawn]


def test_what_is_canceled_changes_nothing(page: tuple[str, int, str, list[object]]) -> None:
    host, port, path, results = page
    assert ask(host, port, "POST", f"{path}result", b"{}")[0] == 200
    threading.Event().wait(0.5)
    assert results == [None]
