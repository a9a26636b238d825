"""Holds the JSON of a command to its schema in docs/reference/schemas, field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

jsonschema = pytest.importorskip("jsonschema")
SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "reference" / "schemas"


def schema_of(kind: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))


def strict(schema: Any) -> Any:
    """The schema with no field allowed that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: strict(part) for key, part in schema.items()}
    return {**parts, "additionalProperties": False} if isinstance(schema.get("properties"), dict) else parts


def check(line: str, kind: str) -> dict[str, Any]:
    """The fields of a printed object, which are those of its kind and no others."""
    fields = json.loads(line)
    assert next(iter(fields)) == "schema"
    assert fields["schema"] == f"fewshot-ad/{kind}/1"
    jsonschema.validate(fields, strict(schema_of(kind)))
    return fields
