"""The page in Firefox: the way from photographs to an undone correction, and every view without a fault."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.line.conftest import free_port
from tests.line.page.conftest import WAIT_MS, Photographs, Site

if TYPE_CHECKING:
    from marionette_driver.marionette import Marionette

VIEWS = ("#/live", "#/teach", "#/teach/part", "#/history", "#/health")


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Marionette]:
    """Firefox without a window."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("NO FIREFOX: neither firefox-esr nor firefox is installed")
    marionette = pytest.importorskip("marionette_driver.marionette", reason="NO FIREFOX: marionette_driver is absent")
    profile, port = tmp_path_factory.mktemp("firefox"), free_port()
    settings = {"marionette.port": port, "intl.locale.requested": '"en-US"', "intl.accept_languages": '"en-US"'}
    (profile / "user.js").write_text("".join(f'user_pref("{name}", {value});\n' for name, value in settings.items()))
    command = [program, "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = marionette.Marionette(host="127.0.0.1", port=port)
        client.raise_for_port(timeout=60, check_process_status=False)
        client.start_session()
        yield client
        client.delete_session()
    finally:
        process.kill()
        process.wait()


def wait_for(firefox: Marionette, condition: str, *arguments: Any) -> Any:
    """What an expression of JavaScript gives as soon as it gives anything."""
    from marionette_driver import Wait

    def given(client: Marionette) -> Any:
        return client.execute_script(f"return {condition}", script_args=arguments)

    return Wait(firefox, timeout=WAIT_MS / 1000, interval=0.1).until(given, message=condition)


def find(firefox: Marionette, selector: str, text: str = "") -> Any:
    """The element that can be seen, with that text in it."""
    found = "[...document.querySelectorAll(arguments[0])]"
    return wait_for(
        firefox,
        f"{found}.find((one) => one.checkVisibility() && one.textContent.includes(arguments[1]))",
        selector,
        text,
    )


def give(firefox: Marionette, selector: str, paths: list[Path]) -> None:
    """Choose files, all at once."""
    chooser = wait_for(firefox, "document.querySelector(arguments[0])", selector)
    chooser.send_keys("\n".join(str(path) for path in paths))


def test_teach_inspect_accept_undo(firefox: Marionette, new_site: Site, photographs: Photographs) -> None:
    firefox.navigate(f"{new_site.url}#/teach")
    find(firefox, ".teach-form input[type=text]").send_keys("part 1")
    give(firefox, ".teach-form input[type=file]", [*photographs.support, photographs.good[0]])
    wait_for(firefox, "document.querySelectorAll('.thumbnails li').length === 5")
    find(firefox, "summary", "More options").click()
    find(firefox, ".more select").send_keys("fast")
    find(firefox, ".teach-form .big").click()
    find(firefox, "h1, h2", "part 1 is ready")

    find(firefox, "nav a", "Live").click()
    shown = [*photographs.good[:3], *photographs.bad[:7]]
    give(firefox, ".live-bar input[type=file]", shown)
    find(firefox, "main", "10 photographs inspected")
    records = httpx.get(f"{new_site.url}api/inspections").json()["records"]
    assert [record["name"] for record in records] == [path.name for path in reversed(shown)]
    find(firefox, ".verdict-word", "ANOMALOUS")
    wait_for(firefox, "document.querySelector('.stage .overlay')?.naturalWidth > 0")

    find(firefox, "button", "No, it is good").click()
    find(firefox, "dialog button", "It is good: learn it").click()
    find(firefox, "dialog .notice")
    if firefox.execute_script("return document.querySelector('dialog').textContent.includes('Take it all the same')"):
        find(firefox, "dialog button", "Take it all the same").click()
        find(firefox, "dialog button", "Yes, take it all the same").click()
    find(firefox, "dialog .notice", "The product has learned it.")
    find(firefox, "dialog button", "Take the last change back").click()
    find(firefox, "dialog button", "Take it back").click()
    find(firefox, "body", "The last change of part 1 was taken back.")
    assert httpx.get(f"{new_site.url}api/inspections").json()["records"][0]["correction"] is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_from_any_view(firefox: Marionette, site: Site, scheme: str) -> None:
    package = pytest.importorskip("axe_playwright_python", reason="NO AXE: axe-playwright-python is absent")
    axe = (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    firefox.navigate(f"{site.url}#/live")
    firefox.execute_script("localStorage.clear()")
    found = []
    for view in VIEWS:
        firefox.navigate("about:blank")
        firefox.navigate(f"{site.url}{view}")
        wait_for(firefox, "document.querySelector('main h1')")
        if scheme == "dark":
            firefox.execute_script("document.documentElement.dataset.theme = 'dark'")
        firefox.execute_script(f"{axe}; window.axe = axe", sandbox=None)
        faults = firefox.execute_async_script(
            "const [done] = arguments; axe.run().then((result) => done(result.violations))", sandbox=None
        )
        found += [(view, one["id"]) for one in faults if one["impact"] in ("serious", "critical")]
        requests = firefox.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
        found += [(view, url) for url in requests if not url.startswith((site.url, f"blob:{site.url}"))]
        found += [(view, "too wide")] * firefox.execute_script("return document.body.scrollWidth > innerWidth")
    assert found == []
