"""A journal as CSV, Parquet and HTML: all of it, true, and harmless whatever senders call their images."""

from __future__ import annotations

import csv
import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewshot_ad.cli import app
from fewshot_ad.cli.journals import VerdictName, moment
from fewshot_ad.errors import ArgumentError
from fewshot_ad.line.journal import Journal, Selection
from fewshot_ad.line.journal.exporting import COLUMNS, ROWS, csv_lines, rows
from fewshot_ad.line.record import RECORD_VERDICTS, utc_now
from tests.line.conftest import make_record
from tests.line.test_report import Page

EVIL = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "<script>alert(1)</script>", "a\r\nb", "ä,\"'", ""]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    journal = Journal.open(tmp_path / "journal.db", "s")
    for number, name in enumerate(EVIL):
        verdict = "anomalous" if number % 2 else "good"
        inspection = {"regions": [{"box": [1, 2, 3, 4]}]} if number % 2 else {"regions": []}
        journal.add(make_record(name=name, verdict=verdict, severity=0.5 + number, inspection=inspection))
    torn = make_record(verdict="unreadable", severity=None, score=None, threshold=None, reason="=torn")
    journal.add(torn)
    journal.correct("washer", "confirm", "", record=torn.id)
    journal.close()
    return tmp_path / "journal.db"


def run(*args: object) -> str:
    result = CliRunner().invoke(app, ["journal", *(str(arg) for arg in args)])
    assert result.exit_code == 0, result.output
    return result.output


def test_csv_has_every_record_and_no_formula(place: Path, tmp_path: Path) -> None:
    assert "10 inspections" in run("export", place, "-o", tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert len(found) == len(EVIL) + 1
    assert tuple(found[0]) == COLUMNS
    cells = [cell for row in found for cell in row.values() if cell[:1] in tuple("=+-@\t\r") and cell]
    # A number is one, and no formula.
    assert cells == ["+1", "-1"]
    assert found[1]["regions"] == "1,2,3,4"
    assert found[-1]["correction"] == "confirm"
    assert float(found[1]["score"]) == pytest.approx(0.3)


def test_parquet_has_the_numbers_as_they_are(place: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run("export", place, "-o", tmp_path / "all.parquet", "--verdict", "good", "--verdict", "anomalous")
    table = parquet.read_table(tmp_path / "all.parquet").to_pylist()
    assert [row["name"] for row in table] == EVIL
    assert table[0]["score"] == 0.1 + 0.2
    assert table[0]["time"].tzinfo is not None


def test_the_page_loads_nothing_and_shows_names_as_text(place: Path, tmp_path: Path) -> None:
    run("export", place, "-o", tmp_path / "all.html")
    page = Page((tmp_path / "all.html").read_text(encoding="utf-8"))
    assert not {tag for tag, _ in page.seen} & {"script", "link", "iframe", "img"}
    assert "<script>alert(1)</script>" in page.text
    assert "not readable" in page.text


def test_an_older_file_stays_unless_it_is_said(place: Path, tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("mine")
    result = CliRunner().invoke(app, ["journal", "export", str(place), "-o", str(tmp_path / "all.csv")])
    assert result.exit_code == 2
    assert (tmp_path / "all.csv").read_text() == "mine"
    run("export", place, "-o", tmp_path / "all.csv", "--force")
    assert (tmp_path / "all.csv").read_text().startswith("time,")
    result = CliRunner().invoke(app, ["journal", "export", str(place), "-o", str(place), "--format", "csv", "--force"])
    assert result.exit_code == 2
    assert Journal.open(place).counts(Selection())["good"] == 5


def test_the_shell_knows_every_verdict() -> None:
    assert tuple(one.value for one in VerdictName) == RECORD_VERDICTS


def test_times_of_a_command_line() -> None:
    now = datetime.datetime.now().astimezone()
    assert moment(None, "--since") is None
    assert abs((now - moment("8h", "--since")).total_seconds() - 8 * 3600) < 5  # type: ignore[operator]
    assert moment("2026-11-28T06:00", "--since").isoformat().startswith("2026-11-28T06:00:00")  # type: ignore[union-attr]
    assert moment("2026-11-28T06:00:00Z", "--since") == datetime.datetime(2026, 11, 28, 6, tzinfo=datetime.timezone.utc)
    for text in ("yesterday", "", "8x", "99999999999d", "h"):
        with pytest.raises(ArgumentError, match="--since"):
            moment(text, "--since")


def test_more_rows_than_are_read_at_a_time(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal.db", "s")
    import sqlalchemy as sa

    from fewshot_ad.line.journal.tables import records

    with journal.engine.begin() as connection:
        many = [make_record(time=utc_now()).model_dump(exclude={"schema_"}) for _ in range(2 * ROWS + 3)]
        connection.execute(sa.insert(records), many)
    assert sum(1 for _ in csv_lines(rows(journal, Selection()))) == 2 * ROWS + 3
    journal.close()
