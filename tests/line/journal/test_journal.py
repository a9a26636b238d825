"""The journal: what it was told it says again, on SQLite and on PostgreSQL, and after the worst moment."""

from __future__ import annotations

import datetime
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.line.journal import Journal, JournalError, Lost, Picture, Selection
from fewshot_ad.line.journal.database import open_database
from fewshot_ad.line.journal.tables import metadata
from fewshot_ad.line.record import Record, new_id, utc_now
from tests.line.conftest import make_record


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "journal.db") if request.param == "sqlite" else request.getfixturevalue("new_database")


def test_what_went_in_comes_out(place: str) -> None:
    record = make_record(inspection={"regions": [{"box": [1, 2, 3, 4]}], "score": 0.1 + 0.2}, key="k", image="a/b.png")
    other = make_record(verdict="unreadable", score=None, threshold=None, severity=None, reason="torn")
    journal = Journal.open(place, "s")
    assert journal.add(record) < journal.add(other)
    journal.close()
    journal = Journal.open(place, "s")
    assert journal.get(record.id) == record
    assert journal.by_key("k") == record
    assert journal.get(other.id) == other
    assert journal.get(new_id()) is None
    assert journal.by_key("other") is None
    journal.close()


def test_records_are_selected_and_counted(place: str) -> None:
    journal = Journal.open(place, "s")
    start = utc_now()
    for number in range(6):
        at = start + datetime.timedelta(hours=number)
        journal.add(make_record(time=at, verdict="anomalous" if number % 3 == 0 else "good", name=str(number)))
    journal.add(make_record(product="nut", time=start))
    names = [record.name for _, record in journal.select(Selection("washer"), 2)]
    assert names == ["5", "4"]
    bad = Selection(verdicts=("anomalous",))
    assert [record.name for record in journal.each(bad)] == ["0", "3"]
    middle = Selection(since=start + datetime.timedelta(hours=2), until=start + datetime.timedelta(hours=4))
    assert [record.name for record in journal.each(middle)] == ["2", "3"]
    assert journal.counts(Selection("washer")) == {
        "good": 4,
        "review": 0,
        "anomalous": 2,
        "not_inspectable": 0,
        "unreadable": 0,
    }
    page = journal.select(Selection("washer"), 2)
    following = journal.select(Selection("washer", before=page[-1][0]), 2)
    assert [record.name for _, record in following] == ["3", "2"]
    journal.close()


def test_readers_go_on_where_they_were(place: str) -> None:
    journal = Journal.open(place, "s")
    told: list[int] = []
    journal.on_new(lambda: told.append(1))
    seqs = [journal.add(make_record()) for _ in range(3)]
    assert len(told) == 3
    assert journal.position("mqtt") == 0
    assert [seq for seq, _ in journal.records_after(0)] == seqs
    for seq in seqs[:2]:
        journal.set_position("mqtt", seq)
    assert journal.position("mqtt") == seqs[1]
    assert journal.count_after(seqs[1]) == 1
    assert journal.position("lamp", from_now=True) == seqs[2]
    # Of another station in the same database it hears nothing.
    other = Journal.open(place, "other")
    assert other.records_after(0) == []
    assert other.position("mqtt") == 0
    other.close()
    journal.close()


def test_a_key_is_used_once(place: str) -> None:
    journal = Journal.open(place, "s")
    journal.add(make_record(key="k"))
    with pytest.raises(JournalError):
        journal.add(make_record(key="k"))
    # The journal works on after that.
    journal.add(make_record(key="l"))
    journal.close()


def test_corrections_and_taking_them_back(place: str) -> None:
    journal = Journal.open(place, "s")
    record = make_record()
    journal.add(record)
    accept = journal.correct("washer", "accept", "a" * 64, record=record.id, notes="severity 1.2 before")
    assert journal.corrections_of([record.id]) == {record.id: accept}
    assert journal.last_change("washer") == accept
    journal.correct("washer", "undo", "b" * 64, record=record.id, undoes=accept.id)
    assert journal.corrections_of([record.id]) == {}
    assert journal.last_change("washer") is None
    journal.close()


def test_what_had_no_verdict_is_told_after_a_crash(place: str) -> None:
    journal = Journal.open(place, "s")
    assert journal.start("first") == []
    done, cut = new_id(), new_id()
    for one in (done, cut):
        journal.begin(Lost(one, utc_now(), "washer", "http", f"{one[-4:]}.png"))
    journal.add(make_record(id=done))
    journal.close()
    journal = Journal.open(place, "s")
    [lost] = journal.start("second")
    assert lost.id == cut
    kinds = [event.kind for event in journal.events()][::-1]
    assert kinds == ["start", "trouble", "lost", "start"]
    assert cut in journal.events(kinds=["lost"])[0].text
    assert journal.start("third") == []
    journal.abandon(cut)
    journal.close()


def test_many_threads_write_at_once(place: str) -> None:
    journal = Journal.open(place, "s")

    def write() -> None:
        for _ in range(20):
            one = make_record()
            journal.begin(Lost(one.id, one.time, one.product, one.source, one.name))
            journal.add(one)
            journal.set_position("reader", 1)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.count_after(0) == 160
    assert journal.start("again") == []
    journal.close()


def test_the_migrations_make_the_tables_that_the_code_has(place: str) -> None:
    engine = open_database(place)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_reading_does_not_wait_for_the_writer(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal.db", "s")
    journal.add(make_record(name="there"))
    with journal._write():
        # On a thread of its own, as a reader is.
        found: list[int] = []
        reader = threading.Thread(target=lambda: found.append(journal.count_after(0)))
        reader.start()
        reader.join(5)
        assert found == [1]
    journal.close()
    with pytest.raises(JournalError, match="was closed"):
        journal.add(make_record())


def test_many_open_a_new_journal_at_once(place: str) -> None:
    opened: list[Journal] = []
    threads = [threading.Thread(target=lambda: opened.append(Journal.open(place, "s"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(opened) == 6
    for journal in opened:
        journal.close()


def test_a_journal_of_a_later_version_is_left_alone(place: str) -> None:
    engine = open_database(place)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '999'")
    engine.dispose()
    with pytest.raises(JournalError, match=r"later version.*Update fewshot-ad"):
        open_database(place)


def test_other_files_are_no_journals(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database " * 1000)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE records (x)")
    for place, said in (
        (tmp_path / "text.db", "another file"),
        (tmp_path / "other.db", "tables of something else"),
        (tmp_path / "no" / "journal.db", "Create it"),
        (tmp_path, "cannot be opened"),
        ("postgresql+psycopg://user:secret@127.0.0.1:1/x", "connection"),
        ("nosuch://x", "driver"),
        ("://", "URL"),
    ):
        with pytest.raises(JournalError, match=said) as caught:
            Journal.open(place)
        assert "secret" not in str(caught.value)


def test_one_station_writes_a_journal(tmp_path: Path) -> None:
    first = Journal.open(tmp_path / "journal.db", exclusive=True)
    with pytest.raises(JournalError, match="in use"):
        Journal.open(tmp_path / "journal.db", exclusive=True)
    # Whoever only reads may.
    Journal.open(tmp_path / "journal.db").close()
    first.close()
    Journal.open(tmp_path / "journal.db", exclusive=True).close()


def test_a_full_disk_loses_nothing_that_was_there(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal.db", "s")
    journal.add(make_record(name="before"))
    pages = sqlite3.connect(tmp_path / "journal.db").execute("PRAGMA page_count").fetchone()[0]

    def cramped(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    sa.event.listen(journal.engine, "connect", cramped)
    journal.close()
    journal._engine.dispose()
    journal = Journal(journal.engine, "s")

    def fill() -> None:
        for _ in range(200):
            journal.add(make_record(inspection={"regions": ["x" * 1000]}))

    with pytest.raises(JournalError, match="disk is full"):
        fill()
    kept = journal.count_after(0)
    sa.event.remove(journal.engine, "connect", cramped)
    journal.close()
    # Once there is room it goes on.
    journal = Journal.open(tmp_path / "journal.db", "s")
    assert journal.count_after(0) == kept
    journal.add(make_record(name="after"))
    assert [record.name for _, record in journal.select(Selection(), 1)] == ["after"]
    journal.close()


WRITER = """
import sys
from fewshot_ad.line.journal import Journal, Lost
from tests.line.conftest import make_record
journal = Journal.open(sys.argv[1], "s")
journal.start("begin")
while True:
    record = make_record()
    journal.begin(Lost(record.id, record.time, "washer", "http", "a.png"))
    journal.add(record)
    print(record.id, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_killed_station_has_all_that_it_answered(tmp_path: Path) -> None:
    place = tmp_path / "journal.db"
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", WRITER, str(place)]
    answered: list[str] = []
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=dict(os.environ)) as writer:
            assert writer.stdout is not None
            answered += [writer.stdout.readline().strip() for _ in range(40)]
            writer.send_signal(signal.SIGKILL)
            answered += [line.strip() for line in writer.stdout if len(line.strip()) == 32]
    journal = Journal.open(place, "s")
    lost = journal.start("after")
    there = {record.id for record in journal.each(Selection())}
    assert set(answered) <= there
    # Of each life at most the one in flight is missing, and one may be there that was not answered any more.
    assert len(there) <= len(answered) + 3
    assert len(lost) + len(journal.events(kinds=["lost"])) <= 4
    journal.close()


def test_pictures_are_known_by_age_and_verdict(place: str) -> None:
    journal = Journal.open(place, "s")
    for number, verdict in enumerate(("anomalous", "good", "good")):
        journal.add(make_record(verdict=verdict), [Picture(f"{number}.jpg", 100)])
    assert journal.picture_bytes() == 300
    oldest = journal.oldest_pictures(10)
    assert [(picture.name, good) for picture, good in oldest] == [("1.jpg", True), ("2.jpg", True), ("0.jpg", False)]
    journal.forget_pictures(["1.jpg"])
    assert journal.picture_bytes() == 200
    journal.close()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=30))
def test_ids_are_sorted_whatever_the_clock_does(times: list[int]) -> None:
    import fewshot_ad.line.record as module

    real, at = module.utc_now, iter(times)
    module.utc_now = lambda: datetime.datetime.fromtimestamp(next(at) / 1000, datetime.timezone.utc)
    try:
        ids = [new_id() for _ in times]
    finally:
        module.utc_now = real
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert all(len(one) == 32 and one[12] == "7" and one[16] in "89ab" for one in ids)


def test_a_record_is_json_and_back() -> None:
    record = make_record(inspection={"a": [1, 2.5, None]}, name="\u2028 <b>")
    assert Record.model_validate_json(record.to_json()) == record
    assert record.as_dict()["schema"] == "fewshot-ad/inspection-record/1"
    assert record.as_dict()["time"].endswith("Z")
