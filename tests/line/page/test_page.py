"""The page in a browser, over a station that runs: everything that people do with it."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fewshot_ad import Inspector
from fewshot_ad.line import Report
from tests.line.page.conftest import TOKEN, WAIT_MS, OpenPage, Photographs, Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

VIEWS = ("#/live", "#/teach", "#/teach/part", "#/history", "#/health")
HOSTILE = "<img src=x onerror=alert(1)>.png"


def latest(site: Site, **query: Any) -> dict[str, Any]:
    """The latest record."""
    record: dict[str, Any] = httpx.get(f"{site.url}api/inspections", params={"limit": 1, **query}).json()["records"][0]
    return record


def expect(locator: Locator) -> Any:
    """Playwright's own `expect`, which waits, here as long as all else does."""
    from playwright.sync_api import expect as expect_that

    expect_that.set_options(timeout=WAIT_MS)
    return expect_that(locator)


def teach(page: Page, name: str, paths: list[Path]) -> None:
    """Teach a product in the view that is open, with the fastest options."""
    page.get_by_label("What is the product called?").fill(name)
    page.locator(".teach-form input[type=file]").set_input_files([str(path) for path in paths])
    expect(page.locator(".thumbnails li")).to_have_count(len(paths))
    page.get_by_text("More options").click()
    page.get_by_label("Speed").select_option("fast")
    page.get_by_role("button", name="Teach", exact=True).click()


def test_teach_inspect_accept_undo_export(new_site: Site, open_page: OpenPage, photographs: Photographs) -> None:
    page = open_page(new_site, "#/live")
    expect(page.locator(".verdict-panel")).to_have_text("Nothing has been inspected since the start.")

    page.get_by_role("link", name="Teach").click()
    teach(page, "part 1", [*photographs.support, photographs.good[0]])
    page.get_by_role("heading", name="part 1 is ready").wait_for()
    sheet = page.locator(".sheet")
    record = httpx.get(f"{new_site.url}api/products/part 1").json()
    for words in (record["calibration"]["explanation"], record["sensitivity"]["explanation"]):
        expect(sheet).to_contain_text(words)
    sheet.get_by_text("Pictures of what it catches").click()
    expect(sheet.locator(".limits")).to_have_js_property("complete", True)

    page.get_by_role("link", name="Live").click()
    shown = [*photographs.good[:3], *photographs.bad[:7]]
    page.locator(".live-bar input[type=file]").set_input_files([str(path) for path in shown])
    page.get_by_text("10 photographs inspected").wait_for()
    counts = httpx.get(f"{new_site.url}api/counts").json()
    assert sum(counts.values()) == 10
    last = latest(new_site)
    assert last["name"] == shown[-1].name
    assert last["verdict"] == "anomalous"
    expect(page.locator(".verdict-word")).to_have_text("ANOMALOUS")
    expect(page.locator(".tiles li", has_text="ANOMALOUS").locator("b")).to_have_text(str(counts["anomalous"]))
    expect(page.locator(".stage .overlay")).to_have_js_property("complete", True)

    page.get_by_role("button", name="No, it is good").click()
    expect(page.locator("dialog")).to_contain_text("are good from then on")
    page.get_by_role("button", name="It is good: learn it").click()
    outcome = page.locator("dialog .notice")
    outcome.wait_for()
    if page.get_by_role("button", name="Take it all the same").count():
        # A bottle that is broken in two may let drawn defects pass, which has to be asked for twice.
        page.get_by_role("button", name="Take it all the same").click()
        page.get_by_role("button", name="Yes, take it all the same").click()
    expect(outcome).to_contain_text("The product has learned it.")
    assert re.search(r"severity \d\.\d\d before, \d\.\d\d now", outcome.inner_text())
    assert latest(new_site)["correction"] == "accept"

    page.get_by_role("button", name="Take the last change back").last.click()
    expect(page.locator("dialog")).to_contain_text(f"accepted {last['name']}")
    page.get_by_role("button", name="Take it back").click()
    page.get_by_text("The last change of part 1 was taken back.").wait_for()
    assert latest(new_site)["correction"] is None
    assert httpx.get(f"{new_site.url}api/products/part 1").json()["sha256"] == record["sha256"]

    page.get_by_role("link", name="History").click()
    expect(page.locator(".records li")).to_have_count(10)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as a table (CSV)").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig"))))
    assert [row["name"] for row in rows] == [path.name for path in shown]


def audit(page: Page) -> list[str]:
    """What axe-core finds that keeps people from using a page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="NO AXE: axe-playwright-python").Axe()
    found = axe.run(page).response["violations"]
    return [
        f"{page.url}: {one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_from_any_view(
    site: Site, locked_site: Site, open_page: OpenPage, photographs: Photographs, scheme: str
) -> None:
    page = open_page(site, "#/live", color_scheme=scheme)
    found = []
    for view in (*VIEWS, f"#/history/{latest(site, verdict='anomalous')['id']}"):
        page.goto(f"{site.url}{view}")
        page.wait_for_timeout(300)
        found += audit(page)
    page.get_by_role("button", name="Mark the defect").click()
    found += audit(page)
    page.goto(f"{site.url}#/teach")
    page.locator(".teach-form input[type=file]").set_input_files(str(photographs.good[0]))
    page.get_by_text("More options").click()
    found += audit(page)
    found += audit(open_page(locked_site, color_scheme=scheme))
    assert found == []


def test_a_product_is_taught_with_the_keyboard_alone(site: Site, open_page: OpenPage, photographs: Photographs) -> None:
    page = open_page(site, "#/live")

    # From the start on: it takes a moment until the browser hands its window over.
    page.on("filechooser", lambda chooser: chooser.set_files([str(path) for path in photographs.support[:3]]))

    def tab_to(selector: str) -> None:
        for _ in range(40):
            if page.evaluate("selector => document.activeElement?.matches(selector) ?? false", selector):
                style = "getComputedStyle(document.activeElement.closest('.file') ?? document.activeElement)"
                assert page.evaluate(f"{style}.outlineStyle") != "none", f"{selector} does not show that it is next"
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"the tab key does not lead to {selector}")

    tab_to('nav a[href="#/teach"]')
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Teach a product").wait_for()
    tab_to(".teach-form input[type=text]")
    page.keyboard.type("by keyboard")
    tab_to(".teach-form input[type=file]")
    page.keyboard.press("Enter")
    expect(page.locator(".thumbnails li")).to_have_count(3)
    tab_to(".thumbnails button")
    page.keyboard.press("Enter")
    expect(page.locator(".thumbnails li")).to_have_count(2)
    tab_to(".more summary")
    page.keyboard.press("Enter")
    tab_to(".more select")
    page.keyboard.press("ArrowDown")
    tab_to(".teach-form .big")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="by keyboard is ready").wait_for()
    expect(page.locator(":focus")).to_have_text("by keyboard is ready")
    tab_to(".sheet input[type=file]")
    httpx.delete(f"{site.url}api/products/by keyboard")


def test_a_file_name_is_only_text(site: Site, open_page: OpenPage, photographs: Photographs) -> None:
    page = open_page(site, "#/live")
    content = photographs.bad[1].read_bytes()
    file: Any = {"name": HOSTILE, "mimeType": "image/png", "buffer": content}
    page.locator(".live-bar input[type=file]").set_input_files(file)
    expect(page.locator(".live-about")).to_contain_text(HOSTILE)
    page.get_by_role("button", name="No, it is good").click()
    expect(page.locator("dialog")).to_contain_text(HOSTILE)
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    page.get_by_role("link", name="History").click()
    page.locator(".records a", has_text=HOSTILE).click()
    expect(page.locator("h1")).to_contain_text(HOSTILE)
    page.get_by_role("link", name="Teach").click()
    page.locator(".teach-form input[type=file]").set_input_files(file)
    expect(page.locator(".thumbnail-name")).to_have_text(HOSTILE)
    page.goto(f"{site.url}#/teach/{HOSTILE}")
    expect(page.locator("h1")).to_have_text(HOSTILE)
    expect(page.locator("main .notice.error")).to_be_visible()


def test_a_refusal_is_shown_and_overridden_only_after_a_second_question(
    site: Site, open_page: OpenPage, photographs: Photographs
) -> None:
    page = open_page(site, "#/live")
    page.locator(".live-bar input[type=file]").set_input_files(str(photographs.bad[2]))
    expect(page.locator(".live-about")).to_contain_text(photographs.bad[2].name)
    record = latest(site)

    sent: list[dict[str, Any]] = []
    page.on("request", lambda request: request.method == "POST" and sent.append(json.loads(request.post_data or "{}")))
    page.get_by_role("button", name="Mark the defect").click()
    expect(page.locator(".region img")).not_to_have_js_property("naturalWidth", 0)
    box = page.locator(".region img").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.75 * box["height"], steps=3)
    page.mouse.up()
    page.locator(".region").press("ArrowRight")
    page.get_by_role("button", name="It is defective: keep it").click()
    expect(page.locator("dialog .notice")).to_contain_text("keeps it as a known defect")
    width, height = record["inspection"]["size"]
    expected = [0.26 * width, 0.25 * height, 0.25 * width, 0.5 * height]
    assert sent[0]["region"] == pytest.approx(expected, abs=0.02 * width)
    page.get_by_role("button", name="Close").last.click()

    page.get_by_role("button", name="No, it is good").click()
    page.get_by_role("button", name="It is good: learn it").click()
    expect(page.locator("dialog .notice.error")).to_contain_text("it was rejected as a defect. Nothing was changed.")
    page.get_by_role("button", name="Take it all the same").click()
    expect(page.locator("dialog .notice.warning")).to_contain_text("it was rejected as a defect")
    assert [one["force"] for one in sent] == [False, False]
    page.get_by_role("button", name="Yes, take it all the same").click()
    expect(page.locator("dialog .notice.good")).to_contain_text("The product has learned it.")
    assert [one["force"] for one in sent] == [False, False, True]
    page.get_by_role("button", name="Close").last.click()
    for _ in range(2):
        assert httpx.post(f"{site.url}api/products/part/undo").status_code == 200


def test_products_are_replaced_only_when_asked_deleted_and_brought_back(
    site: Site, open_page: OpenPage, product_file: Path, photographs: Photographs
) -> None:
    shutil.copy(product_file, site.catalog / "spare.fsad")
    page = open_page(site, "#/teach")
    teach(page, "spare", photographs.support[:2])
    expect(page.locator("dialog")).to_contain_text("There is a product of this name.")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Teach", exact=True)).to_be_enabled()
    assert httpx.get(f"{site.url}api/jobs").json()[:1] == [] or "spare" not in httpx.get(f"{site.url}api/jobs").text

    page.get_by_role("button", name="Delete spare").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text("spare was deleted.").wait_for()
    assert not (site.catalog / "spare.fsad").exists()
    page.locator(".toast").get_by_role("button", name="Bring back").click()
    page.get_by_text("spare is back.").wait_for()
    page.get_by_role("link", name="spare").wait_for()
    assert (site.catalog / "spare.fsad").read_bytes() == product_file.read_bytes()
    (site.catalog / "spare.fsad").unlink()


def test_teaching_is_canceled_and_nothing_of_it_stays(
    site: Site, open_page: OpenPage, photographs: Photographs
) -> None:
    page = open_page(site, "#/teach")
    teach(page, "half", photographs.support)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Canceled. Nothing was changed.").wait_for()
    expect(page.locator(".thumbnails li")).to_have_count(4)
    assert not (site.catalog / "half.fsad").exists()


def test_the_history_is_filtered_continued_and_walked_through(site: Site, open_page: OpenPage) -> None:
    page = open_page(site, "#/live")
    page.route("**/api/inspections?*", lambda route: route.continue_(url=route.request.url.replace("=40", "=2")))
    page.get_by_role("link", name="History").click()
    rows = page.locator(".records a")
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Load more").click()
    expect(rows.nth(2)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(rows.nth(1)).to_be_focused()
    ids = rows.evaluate_all("rows => rows.map(row => row.hash.split('/').pop())")
    page.keyboard.press("Enter")
    # The address changes before the view does; what the keys lead to is known with the buttons of the view.
    for shown, key in ((ids[1], "ArrowRight"), (ids[2], "ArrowLeft"), (ids[1], None)):
        expect(page.locator("main code").first).to_have_text(shown)
        page.get_by_role("button", name="← Newer").wait_for()
        if key:
            page.keyboard.press(key)
    page.get_by_role("link", name="← Back to the history").click()

    page.get_by_role("checkbox", name="NOT READABLE").check()
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("shown 1")
    assert "verdict=unreadable" in page.url
    link = page.get_by_role("link", name="Download as a table (CSV)")
    assert "verdict=unreadable" in (link.get_attribute("href") or "")
    page.get_by_label("From").fill("2999-01-01")
    page.get_by_text("No inspection fits.").wait_for()


def test_a_record_is_shown_with_its_nearest_good_photograph(site: Site, open_page: OpenPage) -> None:
    record = latest(site, verdict="anomalous")
    page = open_page(site, f"#/history/{record['id']}")
    expect(page.locator(".nearest img")).not_to_have_js_property("naturalWidth", 0)
    for value in (record["id"], record["artifact"], f"{record['threshold']:.3f}", f"{record['severity']:.2f}"):
        expect(page.locator("main")).to_contain_text(value)
    overlay = page.locator(".stage .overlay")
    slider = page.get_by_label("How much of the marks is shown")
    slider.fill("25")
    assert overlay.evaluate("image => image.style.opacity") == "0.25"
    page.get_by_label("How photograph and marks").select_option("wipe")
    assert overlay.evaluate("image => image.style.clipPath") == "inset(0px 75% 0px 0px)"


def test_what_is_wrong_is_said_in_every_view(site: Site, open_page: OpenPage) -> None:
    page = open_page(site, "#/live")
    page.locator(".verdict-word").wait_for()

    health = httpx.get(f"{site.url}api/health").json()
    trouble = {**health, "status": "trouble", "problems": ["mqtt: <b>no broker</b>", "disk: full"]}
    page.route("**/api/health", lambda route: route.fulfill(json=trouble))
    banner = page.locator("#banner")
    expect(banner).to_contain_text("mqtt: <b>no broker</b>")
    banner.get_by_role("link", name="All problems").click()
    expect(page.locator(".health-state .notice.error li")).to_have_count(2)
    expect(banner).to_be_hidden()
    page.unroute("**/api/health")
    page.get_by_role("link", name="Live").click()
    page.locator(".verdict-word").wait_for()
    expect(banner).to_be_empty()
    page.route("**/api/live", lambda route: route.abort())
    expect(banner).to_contain_text("The station cannot be reached.")
    expect(page.locator(".verdict-stale")).to_have_text("No connection: this verdict is an old one.")
    page.unroute("**/api/live")
    expect(page.locator(".verdict-stale")).to_be_hidden()


def test_a_photograph_that_was_not_kept_is_said_to_be_missing(site: Site, open_page: OpenPage) -> None:
    page = open_page(site, "#/health")
    for what in ("image", "overlay", "nearest"):
        page.route(f"**/{what}", lambda route: route.fulfill(status=404, json={"error": "not kept"}))
    page.goto(f"{site.url}#/history/{latest(site, verdict='anomalous')['id']}")
    expect(page.locator(".stage")).to_contain_text("This photograph was not kept.")
    page.goto(f"{site.url}#/history/{latest(site, verdict='unreadable')['id']}")
    page.unroute("**/image")
    expect(page.locator(".detail-title")).to_contain_text("NOT READABLE")


def test_photographs_come_from_cameras_as_well(site: Site, open_page: OpenPage, photographs: Photographs) -> None:
    page = open_page(site, "#/health", permissions=["camera"])
    cameras = [{"name": "top view", "running": True, "error": "", "seen": 0}]
    page.route("**/api/cameras", lambda route: route.fulfill(json=cameras))
    page.route("**/api/cameras/top%20view/frame", lambda route: route.fulfill(path=photographs.good[0]))
    page.goto(f"{site.url}#/teach")
    for name in ("Camera of this device", "Station camera top view"):
        page.get_by_role("button", name=name).click()
        take = page.get_by_role("button", name="Take photograph")
        expect(take).to_be_enabled()
        take.click()
        page.locator("dialog").get_by_text("1 photograph taken").wait_for()
        page.get_by_role("button", name="Done").click()
    expect(page.locator(".thumbnails li")).to_have_count(2)
    sizes = page.locator(".thumbnails img").evaluate_all("images => images.map((image) => image.naturalWidth)")
    assert all(size > 0 for size in sizes)


def test_it_asks_for_the_token(locked_site: Site, open_page: OpenPage) -> None:
    page = open_page(locked_site, "#/health")
    expect(page.locator("nav a")).to_have_count(0)
    page.get_by_label("Token").fill("a guess")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".notice.error")).to_contain_text("That is not the token")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Health of the station").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()


def test_it_speaks_german_and_remembers_language_and_colors(site: Site, open_page: OpenPage) -> None:
    page = open_page(site, "#/live", locale="de-AT")
    assert page.locator("html").get_attribute("lang") == "de"
    expect(page.locator(".verdict-panel .verdict-word")).to_have_text("FEHLER")
    page.get_by_role("button", name="English").click()
    expect(page.locator(".verdict-panel .verdict-word")).to_have_text("ANOMALOUS")
    page.get_by_role("button", name="Dark colors").click()
    page.reload()
    expect(page.locator(".verdict-panel .verdict-word")).to_have_text("ANOMALOUS")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.get_by_role("button", name="Light colors").click()
    assert page.locator("html").get_attribute("data-theme") is None


@pytest.mark.parametrize("width", [360, 1920])
def test_every_view_fits_and_can_be_touched(site: Site, open_page: OpenPage, width: int) -> None:
    page = open_page(site, "#/live", width=width, locale="de-DE")
    for view in (*VIEWS, f"#/history/{latest(site)['id']}"):
        page.goto(f"{site.url}{view}")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{view} is too wide"
        small = page.evaluate(
            """() => [...document.querySelectorAll('button, select, a, summary, .check, input:not([type=checkbox])')]
                .filter((one) => one.checkVisibility() && !one.matches('.skip'))
                .map((one) => [one.outerHTML.slice(0, 100), one.getBoundingClientRect().height])
                .filter(([, height]) => height < 44)"""
        )
        assert small == [], view


def test_a_report_is_printed_whole(browser: Browser, product_file: Path, photographs: Photographs) -> None:
    inspector = Inspector.load(product_file)
    report = Report(inspector)
    for path in (*photographs.good[:3], *photographs.bad[:5]):
        report.add(inspector.inspect(path), f"{'a long name ' * 12}{path.name}")
    page = browser.new_page(viewport={"width": 700, "height": 1000})
    page.set_content(report.render("Early shift"))
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    printed = page.pdf(format="A4")
    page.close()
    assert printed.startswith(b"%PDF-")
    assert printed.count(b"/Subtype /Image") >= 5


def test_a_product_that_a_fitted_baseline_judges(
    baseline_site: Site, open_page: OpenPage, photographs: Photographs
) -> None:
    page = open_page(baseline_site, "#/teach")
    expect(page.locator(".products")).to_contain_text("judged by padim")
    assert page.locator(".products").get_by_role("button", name=re.compile("Delete")).count() == 0
    page.get_by_role("link", name="part", exact=True).click()
    sheet = page.locator(".sheet")
    expect(sheet).to_contain_text("A fitted baseline judges it")
    expect(sheet).to_contain_text("Differs from the published method in")
    sheet.locator("input[type=file]").set_input_files(str(photographs.bad[0]))
    expect(sheet.locator(".outcome")).to_contain_text("ANOMALOUS")
    # It is not watched for drift, which is no error; and it says that it does not learn.
    page.get_by_role("link", name="Health").click()
    expect(page.get_by_text("No product has inspected anything since the start.")).to_be_visible()
    record = latest(baseline_site)
    page.goto(f"{baseline_site.url}#/history/{record['id']}")
    page.get_by_role("button", name="No, it is good").click()
    page.get_by_role("dialog").get_by_role("button", name="It is good: learn it").click()
    expect(page.get_by_role("dialog")).to_contain_text("it does not learn from single images")
