"""A saved product, and how its description is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fewshot_ad import Inspector
from tests.robustness.artifact_mutator import put_together, replaced, taken_apart


@pytest.fixture
def saved(tmp_path: Path, inspector: Inspector) -> Path:
    path = tmp_path / "washer.fsad"
    inspector.save(path)
    return path


FIRST = Path(__file__).parents[1] / "golden" / "brick_v1.fsad"
ABSENT = object()


def changed(data: bytes, field: str, value: object) -> bytes:
    """A product with another value in one field, and the hash that goes with it."""
    header, record, tensors = taken_apart(data)
    path = tuple(int(part) if part.isdigit() else part for part in field.split("."))
    record = replaced(record, path, value)
    if value is ABSENT:
        inner: Any = record
        for part in path[:-1]:
            inner = inner[part]
        del inner[path[-1]]
    return put_together(header, record, tensors)
