"""Free memory, by the system and by the limit of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot_ad.zoo.components import memory


@pytest.mark.parametrize(
    ("limit", "expected"), [("5000000000", 4_000_000_000), ("max", 8_192_000_000), (None, 8_192_000_000)]
)
def test_the_tighter_of_both_counts(
    limit: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    (tmp_path / "current").write_text("1000000000\n")
    if limit is not None:
        (tmp_path / "max").write_text(limit + "\n")
    for name, file in {"MEMINFO": "meminfo", "LIMIT": "max", "USED": "current"}.items():
        monkeypatch.setattr(memory, name, tmp_path / file)
    assert memory.available_bytes() == expected


def test_where_nothing_is_known_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEMINFO", "LIMIT", "USED"):
        monkeypatch.setattr(memory, name, tmp_path / "none")
    assert memory.available_bytes() is None
    memory.require_memory("any", 1e18, "")
