"""The queries that the documentation gives run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from fewshot_ad.line.journal import Journal
from tests.line.conftest import make_record

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "journal.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"\n([^\n]+)\n\n```sql\n(.+?)```", PAGE, flags=re.DOTALL)


def filled(place: str) -> Journal:
    journal = Journal.open(place, "s")
    journal.start("begin")
    record = make_record(artifact="a" * 64)
    journal.add(record)
    journal.add(make_record(verdict="anomalous", severity=2.0, artifact="a" * 64))
    journal.correct("washer", "accept", "b" * 64, record=record.id)
    journal.note("trouble", "the broker was down")
    return journal


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_query_answers(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    place = str(tmp_path / "journal.db") if kind == "sqlite" else request.getfixturevalue("new_database")
    journal = filled(place)
    assert len(QUERIES) == 6
    with journal.engine.connect() as connection:
        for said, query in QUERIES:
            if kind == "sqlite" and "(PostgreSQL)" in said:
                continue
            assert connection.execute(sa.text(query)).all(), said
    journal.close()
