"""A station that runs, photographs of real parts, and a browser that watches what the page does."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import httpx
import pytest

from fewshot_ad import Inspector
from fewshot_ad.line.settings import parse_settings
from fewshot_ad.line.station import ServingStation
from tests.conftest import SHARED, make_part

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

WAIT_MS = 30_000
TOKEN = "a long random word"  # noqa: S105 - of a station that lives for one test
# A camera that shows a test picture, so that no test needs a real one.
CAMERA = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]


class Photographs(NamedTuple):
    """Paths of images: of good parts to teach from, of further good ones, and of defective ones."""

    support: list[Path]
    good: list[Path]
    bad: list[Path]


class Site(NamedTuple):
    """A running station: where, and where its products lie."""

    url: str
    catalog: Path


OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """Real ones where there are any, else drawn ones."""
    bottle = SHARED / "bottle"
    if bottle.is_dir():
        good = sorted((bottle / "train/good").iterdir())[:8]
        return Photographs(good[:4], good[4:], sorted((bottle / "test/broken_large").iterdir())[:8])
    folder = tmp_path_factory.mktemp("parts")
    paths = [folder / f"{seed:03}.png" for seed in range(16)]
    for seed, path in enumerate(paths):
        cv2.imwrite(str(path), cv2.cvtColor(make_part(seed, defect=seed >= 8), cv2.COLOR_RGB2BGR))
    return Photographs(paths[:4], paths[4:8], paths[8:])


def _serve(folder: Path, load_baseline: Callable[[Path], Any] | None = None, **content: Any) -> Iterator[Site]:
    catalog = folder / "products"
    catalog.mkdir(exist_ok=True)
    settings = parse_settings({"listen": {"port": 0}, "threads": 2, **content}, folder)
    serving = ServingStation(settings, load_baseline)
    thread = threading.Thread(target=serving.run)
    thread.start()
    for _ in range(200):
        try:
            httpx.get(f"{serving.url}healthz")
            break
        except httpx.TransportError:
            time.sleep(0.05)
    yield Site(serving.url, catalog)
    serving.stop()
    thread.join(30)


@pytest.fixture(scope="session")
def product_file(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A product, taught from the photographs."""
    path = tmp_path_factory.mktemp("product") / "part.fsad"
    paths = [str(path) for path in photographs.support]
    Inspector.from_support(paths, product="part", preset="fast", precision="f32").save(path)
    return path


@pytest.fixture(scope="module")
def site(product_file: Path, photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A station with that product, which has inspected a good part, what is no image, and a defective part."""
    folder = tmp_path_factory.mktemp("station")
    (folder / "products").mkdir()
    shutil.copy(product_file, folder / "products")
    for running in _serve(folder, station="line 7", pictures={"keep": "all"}):
        shown = [photographs.good[0].read_bytes(), b"no image", photographs.bad[0].read_bytes()]
        for number, content in enumerate(shown):
            address = f"{running.url}api/products/part/inspect?name=shown {number}"
            httpx.post(address, content=content, headers={"content-type": "image/png"}, timeout=60)
        yield running


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[Site]:
    """A station without products."""
    yield from _serve(tmp_path)


@pytest.fixture
def baseline_site(photographs: Photographs, tmp_path: Path) -> Iterator[Site]:
    """A station whose only product is judged by a fitted baseline."""
    from fewshot_ad.zoo.fitted import Baseline

    images = [str(path) for path in photographs.support]
    Baseline.fit("padim", images, product="part", image_size=128).save(tmp_path / "padim")
    yield from _serve(tmp_path, Baseline.load, baselines=["padim"])


@pytest.fixture
def locked_site(tmp_path: Path) -> Iterator[Site]:
    """A station that asks for a token."""
    (tmp_path / "token").write_text(TOKEN)
    yield from _serve(tmp_path, listen={"port": 0, "token_file": "token"})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    reason = "NO BROWSER TESTS: playwright is not installed"
    sync_api = pytest.importorskip("playwright.sync_api", reason=reason)
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("NO BROWSER TESTS: neither chromium nor google-chrome is installed")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *CAMERA])
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens a view of a station, and in the end sees to it that the page did nothing that it must not."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def open_view(site: Site, view: str = "#/live", *, width: int = 1280, height: int = 800, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **{"locale": "en-US", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)

        def see_request(request: Request) -> None:
            if not request.url.startswith((site.url, f"blob:{site.url}")):
                wrong.append(f"a request left the station: {request.url}")

        def see_console(message: Any) -> None:
            # What the station refuses, browsers print as well.
            if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
                wrong.append(f"{message.type} on the console: {message.text}")

        def see_dialog(dialog: Any) -> None:
            wrong.append(f"a script opened a dialog: {dialog.message}")
            dialog.dismiss()

        page.on("request", see_request)
        page.on("console", see_console)
        page.on("pageerror", lambda error: wrong.append(f"an error: {error}"))
        page.on("dialog", see_dialog)
        page.goto(f"{site.url}{view}")
        page.wait_for_selector("main h1")
        return page

    yield open_view
    for context in contexts:
        context.close()
    assert wrong == []
