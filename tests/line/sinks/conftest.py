"""A journal for publishers to read from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fewshot_ad.line.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.open(tmp_path / "journal.db", "press 3")
    yield opened
    opened.close()
