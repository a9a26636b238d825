from __future__ import annotations

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fewshot_ad.benchmark.report import render, write_report
from fewshot_ad.errors import BenchmarkError
from tests.benchmark.browser import Browser
from tests.benchmark.sample_records import METHODS, PUBLISHED, plausible, record, said

HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>&amp;<!--\u2028"


class Page(HTMLParser):
    """The elements of a page, as a browser would split it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def data_of(page: str) -> dict[str, Any]:
    return json.loads(Page(page).scripts[0])


def row_of(data: dict[str, Any], method: str, dataset: str, shots: str = "4") -> dict[str, Any]:
    return next(
        row
        for row in data["rows"]
        if (row["method"], row["dataset"], row["shots"], row["category"]) == (method, dataset, shots, None)
    )


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(plausible(folder), folder / "report.html", title="Made-up figures", published=PUBLISHED)
    return folder / "report.html"


def test_notes_of_records_stand_among_the_runs() -> None:
    records = [record("a", note="converted"), record("b", note="converted"), record("c")]
    assert ["note", "converted", "2"] in data_of(render(records))["runs"]


def test_the_page_loads_nothing(page_path: Path) -> None:
    text = page_path.read_text(encoding="utf-8")
    for tag, attributes in Page(text).tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert name not in attributes, (tag, attributes)
    assert not re.search(r"@import|url\(", text)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    policy = next(a["content"] for t, a in Page(text).tags if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_same_records_give_the_same_page() -> None:
    assert render(plausible()) == render(plausible())


def test_hostile_texts_stay_texts() -> None:
    records = [
        record(HOSTILE, HOSTILE, figures={"image_auroc": 0.9}, dataset=HOSTILE, machine={HOSTILE: HOSTILE}),
        record("b", HOSTILE, status="failed", reason=HOSTILE, dataset=HOSTILE),
    ]
    published = [said(HOSTILE, HOSTILE, 4, {"image_auroc": 0.5}, HOSTILE, HOSTILE)]
    text = render(records, title=HOSTILE, published=published)
    plain = Page(render([record("a")]))
    assert [tag for tag, _ in Page(text).tags] == [tag for tag, _ in plain.tags]
    assert data_of(text)["rows"][0]["method"] in (HOSTILE, "b")
    assert data_of(text)["failed"] == [[f"b, {HOSTILE}/{HOSTILE}, few-shot, K = 4, draw 0", HOSTILE]]


def test_what_the_page_says_of_the_runs(page_path: Path) -> None:
    data = data_of(page_path.read_text(encoding="utf-8"))
    assert dict(data["summary"])["Jobs done"] == "206 of 210"
    assert dict(data["summary"])["Failed"] == "4"
    assert dict(data["summary"])["Run"] == "2026-11-20 to 2026-11-21"
    assert {"torch", "fewshot-ad", "machine", "jobs"} == {line[0] for line in data["runs"]}
    assert len(data["failed"]) == 4
    assert row_of(data, "FastFlow", "Parts AD")["cells"]["image_auroc"][2] == "†"
    # The others are of a setting, and of a dataset, that are not here.
    assert [(p["dataset"], p["setting"], p["source"]) for p in data["published"]] == [
        ("Parts AD", "few-shot", "Roth et al. 2022, table 9"),
        ("Parts AD", "few-shot", "A talk (recalled, not checked there)"),
    ]
    bolt = next(c for c in data["counts"] if c["category"] == "bolt")
    assert (bolt["good"], bolt["defective"], bolt["copy"]) == (20, 45, [200, 0, 60, 70])
    assert next(c for c in data["counts"] if c["category"] == "pcb")["copy"] is None


def test_intervals_are_told_of_single_jobs_only(page_path: Path) -> None:
    data = data_of(page_path.read_text(encoding="utf-8"))
    single = [row["cells"]["image_auroc"][7] for row in data["rows"] if row["category"] == "pcb" and row["done"]]
    assert all(re.fullmatch(r"\d+\.\d to \d+\.\d", text) for text in single)
    others = [row for row in data["rows"] if row["category"] is None or (row["category"] == "bolt")]
    assert all(row["cells"]["image_auroc"][7] == "" for row in others)


def test_pictures_are_embedded_within_bounds(tmp_path: Path) -> None:
    records = plausible(tmp_path)
    data = data_of(render(records, folders=[tmp_path], pictures=1))
    places = [(p["shots"], p["dataset"], p["method"], p["category"]) for p in data["pictures"]]
    assert len(places) == len(set(places)) > len(METHODS)
    assert all(p["source"].startswith("data:image/jpeg;base64,") for p in data["pictures"])
    assert data["picturesLeft"].startswith(f"{2 * len(places)} more")


def test_a_good_example_is_among_two_pictures(tmp_path: Path) -> None:
    names = tuple(f"overlays/a-{number}.jpg" for number in range(4))
    (tmp_path / "overlays").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"\xff\xd8\xff" + name.encode())
    # Two draws; the last picture of each is of a good image.
    records = [dataclasses.replace(record("a", draw=draw), overlays=names) for draw in (0, 1)]
    shown = data_of(render(records, folders=[tmp_path]))["pictures"]
    decoded = [base64.b64decode(p["source"].split(",")[1]) for p in shown]
    assert [content.removeprefix(b"\xff\xd8\xff").decode() for content in decoded] == [names[0], names[3]]


def test_only_pictures_of_the_record_folder_are_embedded(tmp_path: Path) -> None:
    inside = tmp_path / "records"
    inside.mkdir()
    (tmp_path / "other.jpg").write_bytes(b"\xff\xd8\xff of somebody else")
    (inside / "notes.jpg").write_text("no picture")
    names = ("../other.jpg", str(tmp_path / "other.jpg"), "notes.jpg", "missing.jpg", "nul\0byte.jpg")
    records = [dataclasses.replace(record("a"), overlays=names)]
    data = data_of(render(records, folders=[inside], pictures=9))
    assert data["pictures"] == []
    assert data["picturesLeft"].startswith("5 more")
    # A second record file's folder, asked for by name, is one of them.
    assert len(data_of(render(records, folders=[inside, tmp_path], pictures=9))["pictures"]) == 1


def test_a_failed_write_leaves_the_old_page(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BenchmarkError, match="cannot be written"):
        write_report([record("a")], tmp_path / "file" / "report.html")
    with pytest.raises(BenchmarkError, match="at least one record"):
        write_report([], tmp_path / "empty.html")
    write_report([record("a")], tmp_path / "new" / "report.html")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
    assert (tmp_path / "file").read_text() == "no folder"


def test_the_page_works_in_a_browser(page_path: Path) -> None:
    data = data_of(page_path.read_text(encoding="utf-8"))
    with Browser() as browser:
        browser.open(page_path)
        assert browser.texts("#tiles dd")[0] == "206 of 210"
        browser.choose("#shots", "4")

        # A click on a head sorts by it, another one turns it round; the keyboard does the same.
        browser.click("#table thead button[data-key=latency]")
        latencies = [float(text.split()[0]) for text in browser.texts("#table tr:not(.published) td:last-child")]
        assert latencies == sorted(latencies)
        assert len(latencies) == len(METHODS)
        assert browser.texts("#table [aria-sort=ascending]") == ["Latency (ms)"]
        browser.run("document.activeElement.click()")
        assert browser.texts("#table [aria-sort=descending]") == ["Latency (ms)"]
        assert browser.texts("#table tbody tr:first-child th") == ["zero-shot CLIPas published: unknown"]

        # A search leaves the rows that match; published ones tell their source.
        browser.type("#search", "patchcore w")
        assert browser.texts("#table tbody th") == [
            "PatchCore WRN-50as published: no: weights, backbone, views, method"
        ]
        assert browser.texts("#found") == ["1 of 12 rows"]
        boards, parts = (row_of(data, "PatchCore WRN-50", name)["cells"] for name in ("Boards AD", "Parts AD"))
        assert browser.texts("#table tbody td")[:2] == [boards["image_auroc"][1], parts["image_auroc"][1]]
        browser.choose("#search", "")
        assert "published: Roth et al. 2022, table 9" in browser.texts("#table tr.published small")[0]
        # Nothing is known of the jobs behind a published figure.
        assert browser.run("return document.querySelectorAll('#table td[title*=jobs]').length") == 3 * len(METHODS)
        assert browser.run("return document.querySelector('#table tr.published td[title]')") is None

        # Lists are sorted and searched in the same way.
        browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        browser.click("#runs thead button[data-key='2']")
        records = [int(text) for text in browser.texts("#runs td:last-child")]
        assert records == sorted(records)
        browser.click("#runs thead button[data-key='2']")
        assert [int(text) for text in browser.texts("#runs td:last-child")] == records[::-1]
        assert browser.texts("#runs [aria-sort=descending]") == ["Records"]
        browser.type("#failed input", "pcb")
        assert browser.texts("#failed output") == ["2 of 4 rows"]
        assert all("Boards AD/pcb" in text for text in browser.texts("#failed td:first-child"))

        # What only deciding methods have is said so.
        assert not any("threshold of their own" in text for text in browser.texts("#notes p"))
        browser.choose("#figure", "escape_rate")
        assert any("threshold of their own" in text for text in browser.texts("#notes p"))
        browser.choose("#figure", "image_auroc")

        # Images: of an old record those tested, of a new one those of the copy.
        assert browser.texts("#counts .value") == ["27 + 36", "20 + 45"]
        assert browser.texts("#counts-tested") == ["Those that were tested."]
        browser.choose("#dataset", "Parts AD")
        assert browser.texts("#counts .value") == ["200 + 60 + 70"] * 4
        assert browser.texts("#counts-tested") == [""]
        browser.choose("#dataset", "Boards AD")

        # A point tells its method when it has the focus.
        browser.run("document.querySelector('#scatter g').focus()")
        label = browser.run("return document.activeElement.getAttribute('aria-label')")
        assert label.split(":")[0] in METHODS
        assert browser.texts("#scatter .tip") == [label]

        # All figures, settings and columns can be drawn.
        for shown in data["figures"]:
            browser.choose("#figure", shown["name"])
            assert browser.texts("#h-table") == [f"{shown['label']} ({shown['unit']}) by dataset"]
            assert len(browser.texts("#heat tbody tr")) >= len(METHODS) - 1
        browser.choose("#figure", "image_auroc")
        browser.choose("#dataset", "Parts AD")
        browser.choose("#columns", "categories")
        heads = ["Method", "Mean", "bolt", "cable", "leather", "washer", "Jobs", "Latency (ms)"]
        assert browser.texts("#table thead button") == heads
        assert browser.texts("#table .mark")
        browser.click("#shared")
        assert browser.texts("#table .mark") == []
        assert browser.run("return document.querySelector('#pictures img').naturalWidth") > 0

        browser.click("#theme")
        assert browser.run("return getComputedStyle(document.body).colorScheme") == "dark"
        assert browser.complaints() == []


def test_hostile_and_failed_records_in_a_browser(tmp_path: Path) -> None:
    names = (HOSTILE, "__proto__", "constructor", "", "method")
    records = [record(n, n, figures={"image_auroc": 0.9}, dataset=n, ms=5.0) for n in names]
    write_report(records, tmp_path / "hostile.html", title=HOSTILE)
    write_report([record("a", status="failed", reason="no")], tmp_path / "failed.html")
    with Browser(400, 800) as browser:
        browser.open(tmp_path / "hostile.html")
        assert browser.run("return window.broken") is None
        assert len(browser.texts("#table tbody tr")) == len(names)
        assert browser.run("return document.documentElement.scrollWidth") <= 400
        browser.open(tmp_path / "failed.html")
        assert browser.texts("#failed td") == ["a, Parts AD/bolt, few-shot, K = 4, draw 0", "no"]
        assert browser.complaints() == []
