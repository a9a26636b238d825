from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewshot_ad.benchmark.schemas import KINDS, Kind, schema
from fewshot_ad.cli import app

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_schemas_are_up_to_date(kind: Kind) -> None:
    spec = importlib.util.spec_from_file_location("schemas", ROOT / "docs" / "scripts" / "schemas.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    committed = (script.FOLDER / f"{kind}.json").read_text(encoding="utf-8")
    assert committed == script.text(kind), "run: python docs/scripts/schemas.py"


@pytest.mark.parametrize("kind", KINDS)
def test_the_shell_prints_them(kind: Kind) -> None:
    result = CliRunner().invoke(app, ["benchmark", "schema", kind])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == schema(kind)


def test_a_field_that_is_renamed_is_noticed() -> None:
    assert set(schema("plan")["properties"]) == {
        *("name", "methods", "datasets", "shots", "draws", "settings", "seed", "protocol")
    }
    record = schema("record")
    assert {"key", "method", "figures", "support_sha256", "schema"} <= set(record["properties"])
    assert record["properties"]["schema"] == {"const": 1}
    assert schema("recipe")["additionalProperties"] is False


def test_committed_plans_and_records_fit() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    yaml = pytest.importorskip("yaml")
    for plan in (ROOT / "benchmarks").glob("*board*.yaml"):
        jsonschema.validate(yaml.safe_load(plan.read_text()), schema("plan"))
    line = (ROOT / "benchmarks" / "records" / "shared_board.jsonl").read_text().splitlines()[0]
    jsonschema.validate(json.loads(line), schema("record"))
    jsonschema.validate([["bottle", "0", "a.png"]], schema("support-lists"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"methods": {}, "datasets": {}}, schema("plan"))
