"""Many stations, one record: copied once, whatever happens on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewshot_ad.cli import app
from fewshot_ad.line.journal import Journal, JournalError, Selection
from fewshot_ad.line.journal.database import open_database
from fewshot_ad.line.journal.tables import records
from fewshot_ad.line.sinks.replica import Replicator, _reader, replicate, waiting
from tests.line.conftest import make_record
from tests.line.sinks.helpers import wait_until


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "shared.db") if request.param == "sqlite" else request.getfixturevalue("new_database")


def station(tmp_path: Path, name: str, count: int) -> Journal:
    journal = Journal.open(tmp_path / f"{name}.db", name)
    journal.start("begin")
    for number in range(count):
        record = make_record(station=name, name=f"{name} {number}", key=str(number), inspection={"a": [0.1]})
        journal.add(record)
    journal.correct("washer", "confirm", "", record=record.id)
    return journal


def test_stations_come_together_and_nothing_comes_twice(tmp_path: Path, shared: str) -> None:
    engine = open_database(shared)
    one, two = station(tmp_path, "one", 600), station(tmp_path, "two", 3)
    # 600 records take two transactions; a correction and an event each.
    assert replicate(one, engine) == 602
    assert replicate(two, engine) == 5
    assert replicate(one, engine) == 0
    one.add(make_record(station="one", name="late"))
    assert waiting(one, shared) == 1
    assert replicate(one, engine) == 1
    together = Journal.open(shared, "reader")
    assert sum(together.counts(Selection()).values()) == 604
    assert list(together.each(Selection(station="two"))) == list(two.each(Selection()))
    assert together.stations() == ["one", "two"]
    # As after a crash between the copy and the note of it.
    two.set_position(_reader(engine.url, records), 0)
    assert replicate(two, engine) == 3
    assert sum(together.counts(Selection(station="two")).values()) == 3
    for journal in (one, two, together):
        journal.close()
    engine.dispose()


def test_two_stations_of_one_name_are_told_apart(tmp_path: Path, shared: str) -> None:
    engine = open_database(shared)
    (tmp_path / "other").mkdir()
    replicate(station(tmp_path, "one", 2), engine)
    with pytest.raises(JournalError, match="name of its own"):
        replicate(station(tmp_path / "other", "one", 2), engine)
    engine.dispose()


def test_days_without_the_database_are_made_up_for(tmp_path: Path) -> None:
    journal = station(tmp_path, "one", 5)
    folder = tmp_path / "network"
    replicator = Replicator(journal, str(folder / "shared.db"), 0.05)
    replicator.start()
    wait_until(lambda: replicator.state.error != "")
    assert replicator.state.waiting == 5
    assert not replicator.state.connected
    folder.mkdir()
    wait_until(lambda: replicator.state.connected and replicator.state.waiting == 0)
    journal.add(make_record(station="one"))
    replicator.stop()
    # What came last is copied before the end.
    assert replicator.state.waiting == 0
    assert replicator.state.error == ""
    together = Journal.open(folder / "shared.db", "reader")
    assert sum(together.counts(Selection()).values()) == 6
    together.close()


def test_by_hand(tmp_path: Path) -> None:
    station(tmp_path, "one", 2).close()
    for rows in (4, 0):
        result = CliRunner().invoke(app, ["journal", "replicate", str(tmp_path / "one.db"), str(tmp_path / "all.db")])
        assert result.exit_code == 0, result.output
        assert result.output.startswith(f"{rows} rows")
    result = CliRunner().invoke(app, ["journal", "replicate", str(tmp_path / "no.db"), str(tmp_path / "all.db")])
    assert result.exit_code == 2


def test_each_database_gets_everything(tmp_path: Path) -> None:
    journal = station(tmp_path, "one", 3)
    for name in ("first.db", "second.db"):
        engine = open_database(str(tmp_path / name))
        assert replicate(journal, engine) == 5
        engine.dispose()
    journal.close()
