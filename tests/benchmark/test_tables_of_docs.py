"""The tables in docs/ are those that the committed records give."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "tables.py"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARKER = re.compile(r"<!-- table: (\S+) -->")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/tables.py as a module."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    for name in ("tables", "board_tables", "measured_tables", "verdict_tables", "verdicts", "measurements"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("tables")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_the_tables_that_the_records_give(script: ModuleType, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert script.with_tables(text) == text, "print the tables anew: python benchmarks/tables.py --write"
    assert text.count("<!-- table: ") == text.count("<!-- end -->")


def test_every_table_stands_on_one_page_and_is_known(script: ModuleType) -> None:
    standing = [name for page in PAGES for name in MARKER.findall(page.read_text(encoding="utf-8"))]
    assert sorted(standing) == script.names()


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith("https:"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_script_prints_a_table_and_refuses_an_unknown_one() -> None:
    command = [sys.executable, str(SCRIPT)]
    printed = subprocess.run([*command, "encoder-ms"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert printed.splitlines()[0] == "| encoder | median, ms | p95, ms |"
    refused = subprocess.run([*command, "no-such-table"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert refused.returncode == 2


def test_a_changed_figure_is_noticed(script: ModuleType) -> None:
    page = script.with_tables("<!-- table: install-size -->\n<!-- end -->\n")
    assert script.with_tables(page) == page
    assert script.with_tables(page.replace("516", "51")) == page


def test_a_script_puts_its_figures_on_record(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.measurements, "FILE", tmp_path / "measurements.jsonl")
    monkeypatch.setattr(sys, "argv", ["benchmarks/encoder_ms.py", "--record"])
    for p50 in (5.0, 4.0):
        script.measurements.append("encoder_ms", [{"encoder": "one", "p50": p50}])
    run = script.measurements.read("encoder_ms")
    assert run.rows == [{"encoder": "one", "p50": 4.0}]
    assert run.command == "python benchmarks/encoder_ms.py --record"
    assert run.machine["processor"]
    assert run.versions["python"]
    assert script.render("encoder-ms").splitlines()[-1] == "| `one` | 4.0 | \N{EN DASH} |"
