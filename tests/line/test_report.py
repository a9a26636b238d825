"""The page of what was inspected: whole, true to the verdicts, safe whatever files are called."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fewshot_ad import ArgumentError, FewshotADError, Inspector
from fewshot_ad.cli import app
from fewshot_ad.line import Report
from fewshot_ad.line.report import CLOSE_CALLS, MARK
from tests.conftest import make_part


class Page(html.parser.HTMLParser):
    """What a page shows: texts, pictures, attributes; and whether every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


@pytest.fixture
def filled(inspector: Inspector) -> Report:
    report = Report(inspector)
    for seed in range(50, 62):
        report.add(inspector.inspect(make_part(seed, defect=seed % 4 == 0)), f"{seed}.png")
    return report


def test_it_counts_what_was_inspected_and_shows_the_worst_first(filled: Report, inspector: Inspector) -> None:
    filled.add_failure("broken.png", "it is empty")
    filled.add(inspector.inspect(np.zeros((128, 128, 3), np.uint8)), "dark.png")
    page = Page(filled.render("Early shift"))
    results = {seed: inspector.inspect(make_part(seed, defect=seed % 4 == 0)) for seed in range(50, 62)}
    bad = sorted((seed for seed in results if results[seed].is_anomalous), key=lambda seed: -results[seed].severity)
    assert len(bad) == 3
    assert "Early shift" in page.text
    assert "3 of 12 images that could be judged are anomalous" in page.text
    alts = [image["alt"] or "" for image in page.all("img")]
    assert [alt.split(":")[0] for alt in alts[:3]] == [f"{seed}.png" for seed in bad]
    assert alts[3].startswith("dark.png: not inspectable")
    assert len(alts) == 4 + CLOSE_CALLS
    assert "broken.png" in page.text
    assert "it is empty" in page.text
    assert inspector.calibration.explain()[:60] in page.text
    rows = re.findall(r'<td class="number">(\d+)</td><td>([^<]+)</td><td class="(\w+)">', filled.render())
    assert [(name, verdict) for _, name, verdict in rows][:4] == [
        ("50.png", results[50].verdict),
        ("51.png", results[51].verdict),
        ("52.png", "anomalous"),
        ("53.png", results[53].verdict),
    ]


def test_the_histogram_has_every_judged_image(filled: Report) -> None:
    page = Page(filled.render())
    bars = page.all("rect")
    tallest = max(float(bar["height"] or 0) for bar in bars)
    total = sum(float(bar["height"] or 0) for bar in bars)
    count = int(re.findall(r'text-anchor="end">(\d+)</text>', filled.render())[0])
    assert round(total / tallest * count) == 12
    assert len(page.all("circle")) == 12


def test_pictures_are_the_overlays_of_the_worst(inspector: Inspector, broken_part: np.ndarray) -> None:
    report = Report(inspector, pictures=1)
    report.add(inspector.inspect(make_part(60, defect=True)), "other")
    report.add(inspector.inspect(broken_part), "worst")
    seeds = {"other": 60, "worst": 100}
    expected = max(seeds, key=lambda name: inspector.inspect(make_part(seeds[name], defect=True)).score)
    page = Page(report.render())
    [picture] = page.all("img")
    assert (picture["alt"] or "").startswith(f"{expected}: anomalous")
    assert "1 of 2." in page.text
    data = base64.b64decode((picture["src"] or "").removeprefix("data:image/jpeg;base64,"))
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    overlay = inspector.inspect(make_part(seeds[expected], defect=True)).overlay()
    assert np.abs(shown.astype(int) - overlay).mean() < 6


def test_names_of_files_and_titles_are_only_text(inspector: Inspector) -> None:
    nasty = "<script>alert(1)</script>\"'&\x1b[31m"
    report = Report(inspector)
    report.add(inspector.inspect(make_part(50)), nasty)
    report.add_failure(nasty, nasty)
    text = report.render(nasty)
    page = Page(text)
    assert page.all("script") == []
    assert "\x1b" not in text
    assert text.count("&lt;script&gt;") >= 4


def test_it_loads_nothing_and_says_so(filled: Report) -> None:
    text = filled.render()
    page = Page(text)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
    assert (policy or "").startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "http" not in text.replace("http-equiv", "")
    assert all((image["src"] or "").startswith("data:image/jpeg") for image in page.all("img"))
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.all("img"))


def test_an_older_page_is_replaced_and_nothing_else_is(filled: Report, tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    filled.write(path)
    assert MARK in path.read_text()
    filled.write(path, "Again")
    assert "Again" in path.read_text()
    other = tmp_path / "other.html"
    other.write_text("<html>mine</html>")
    with pytest.raises(FewshotADError, match="an older report"):
        filled.write(other)
    assert other.read_text() == "<html>mine</html>"


def test_what_makes_no_sense_is_refused(inspector: Inspector) -> None:
    with pytest.raises(ArgumentError, match="Inspector"):
        Report("part.fsad")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="add_failure"):
        Report(inspector).add(ValueError("broken"))  # type: ignore[arg-type]
    other = dataclasses.replace(inspector.inspect(make_part(50)), product="bracket")
    with pytest.raises(ArgumentError, match="of washer, got one of bracket"):
        Report(inspector).add(other)
    with pytest.raises(ArgumentError, match="pictures"):
        Report(inspector, pictures=-1)
    with pytest.raises(FewshotADError, match="got none"):
        Report(inspector).render()


def test_one_image_or_none_judged_is_a_page_too(inspector: Inspector) -> None:
    report = Report(inspector, pictures=0)
    report.add(inspector.inspect(np.zeros((128, 128, 3), np.uint8)))
    page = Page(report.render())
    assert "could be judged" not in page.text
    assert page.all("svg") == []
    assert page.all("img") == []


def test_the_command_writes_it_and_names_what_cannot_be_read(
    inspector: Inspector, part_folder: Path, tmp_path: Path
) -> None:
    inspector.save(tmp_path / "p.fsad")
    (part_folder / "broken.png").write_bytes(b"oops")
    words = ["report", str(tmp_path / "p.fsad"), str(part_folder), "-o", str(tmp_path / "page.html")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert f"5 good, 1 not readable -> {tmp_path / 'page.html'}" in result.stdout
    page = Page((tmp_path / "page.html").read_text())
    assert "broken.png" in page.text
    (part_folder / "broken.png").unlink()
    assert CliRunner().invoke(app, words).exit_code == 0
    (tmp_path / "page.html").write_text("mine")
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert (tmp_path / "page.html").read_text() == "mine"
