"""The JSON and CSV of the commands are what docs/reference/schemas/ says, field by field.

A field that is new, renamed or gone fails here until its schema says so, too; one that is renamed or gone needs a new
version of the schema.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fewshot_ad.cli import app
from fewshot_ad.cli.outputs import COLUMNS, failure_row, verdict_row
from fewshot_ad.inspector import Inspector
from fewshot_ad.line.journal import Journal
from tests.cli.commands import every_command
from tests.cli.schemas import check, jsonschema, schema_of, strict
from tests.cli.test_benchmark import write_plan
from tests.conftest import make_part
from tests.line.conftest import make_record
from tests.trays import PLACES, tray

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "json-and-csv.md").read_text(encoding="utf-8")
# Every command with --json, and what its objects are.
KINDS = {
    "enroll": "product",
    "add": "product",
    "info": "product",
    "accept": "product",
    "reject": "product",
    "undo": "product",
    "roi": "product",
    "drift": "drift",
    "report": "report",
    "route": "route",
    "diff": "diff",
    "history": "product",
    "inspect": "inspect",
    "check": "check",
    "calibrate": "product",
    "export": "export",
    "bench": "bench",
    "doctor": "doctor",
    "demo": "demo",
    "encoders": "encoders",
    "train": "train",
    "distill": "train",
    "train-pose": "train-pose",
    "parts": "parts",
    "zoo": "zoo",
    "fit": "fit",
    "predict": "inspect",
    "datasets": "datasets",
    "datasets show": "datasets",
    "datasets check": "datasets-check",
    "datasets get": "datasets-get",
    "datasets draw": "datasets-draw",
    "benchmark run": "benchmark-run",
    "benchmark report": "benchmark-report",
    "benchmark lists": "benchmark-lists",
    "serve": "serve",
    "reinspect": "reinspect",
    "journal export": "journal-export",
    "journal events": "journal-event",
    "journal replicate": "journal-replicate",
    "backup": "backup",
    "restore": "restore",
    "fleet push": "fleet-push",
    "fleet pull": "fleet-pull",
}
GROUPS = ("datasets", "benchmark", "journal", "fleet")
# Commands that the tests of training, of datasets and of stations check in the same way.
NOT_RUN = {"train", "distill", "train-pose", "datasets get", "serve"}
PARTS = ("--parts", "auto", "--expect", "6", "--views", "none")
# Kinds that no command is named for.
FURTHER = {"error", "benchmark-job", "doctor-offline", "zoo-survey", "enroll-each", "verify", "serve-check"}


def run(*arguments: object, code: int = 0) -> list[str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    # On a slow machine, how far long work is.
    assert [
        line for line in result.stderr.splitlines() if not re.search(r": \d+ of \d+(, about .+ left)?$", line)
    ] == []
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good images, a line with a broken part and a broken file, and a product."""
    root = tmp_path_factory.mktemp("schemas")
    images = {f"good/{i}.png": make_part(i, 64) for i in range(3)}
    images |= {
        "line/0.png": make_part(9, 64),
        "line/1.png": make_part(10, 64, defect=True),
        "late/0.png": make_part(20),
    }
    for name, pixels in images.items():
        (root / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(root / name), pixels[..., ::-1])
    (root / "line" / "2.png").write_text("oops")
    (root / "trays").mkdir()
    for seed in range(2):
        cv2.imwrite(str(root / "trays" / f"{seed}.png"), tray(seed, turns=(0.0,) * 6)[..., ::-1])
    cv2.imwrite(str(root / "tray.png"), tray(2, PLACES[:5], defects=(0,), turns=(0.0,) * 6)[..., ::-1])
    Inspector.from_support(root / "good", product="p", views="none", image_size=64).save(root / "p.fsad")
    return root


def test_every_command_that_prints_json_is_listed_here() -> None:
    commands = {
        " ".join(path)
        for path, command in every_command()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert commands == set(KINDS)


def test_every_kind_that_is_printed_has_a_schema() -> None:
    printed = {
        kind
        for file in (ROOT / "fewshot_ad" / "cli").glob("*.py")
        for argument in re.findall(r"print_json\(([^,)]+),", file.read_text(encoding="utf-8"))
        for kind in re.findall(r'"([\w-]+)"', argument)
    }
    assert printed == set(KINDS.values()) | FURTHER
    for kind in printed:
        jsonschema.Draft202012Validator.check_schema(schema_of(kind))


@pytest.mark.parametrize("kind", sorted(set(KINDS.values()) | FURTHER))
def test_the_page_names_every_field(kind: str) -> None:
    assert f"schemas/{kind}.json" in PAGE
    for field in schema_of(kind)["properties"]:
        assert f"`{field}`" in PAGE, field


def outputs(root: Path, dataset: Path, tmp: Path) -> Iterator[tuple[str, list[object], int]]:
    """Kind, arguments and exit code of every command that prints JSON."""
    product, grown, records = root / "p.fsad", tmp / "grown.fsad", tmp / "records.jsonl"
    enroll = ["enroll", root / "good", "-o", grown, "--views", "none", "--image-size", "64"]
    run_plan = ["benchmark", "run", write_plan(tmp, dataset, {"mean": {}}), "--out", records, "--runner", "in-process"]
    yield "product", enroll, 0
    yield "product", ["add", grown, root / "late"], 0
    yield "product", ["info", product], 0
    yield (
        "inspect",
        ["inspect", product, root / "line" / "1.png", "--heatmaps", tmp / "heat", "--maps", tmp / "maps"],
        1,
    )
    trays = tmp / "trays"
    yield "product", ["enroll", root / "trays", "-o", trays.with_suffix(".fsad"), *PARTS, "--image-size", "64"], 0
    yield "inspect", ["inspect", trays.with_suffix(".fsad"), root / "tray.png"], 1
    yield "check", ["check", product, "--good", root / "line" / "0.png", "--bad", root / "line" / "1.png"], 0
    yield "product", ["accept", grown, root / "line" / "0.png", "--force"], 0
    yield "product", ["reject", grown, root / "line" / "1.png", "--region", "8,8,30,30"], 0
    yield "product", ["roi", grown, "--ignore", "0,0,16,16"], 0
    yield "enroll-each", ["enroll", "--each", root, "-o", tmp / "each", "--image-size", "64"], 0
    yield "route", ["route", tmp / "each", root / "line" / "0.png"], 0
    yield "report", ["report", product, root / "line" / "0.png", "-o", tmp / "page.html"], 0
    yield "diff", ["diff", product, grown], 1
    yield "verify", ["info", "--verify", grown], 0
    yield "drift", ["drift", grown, root / "good"], 2
    yield "product", ["history", grown], 0
    for _ in range(3):
        yield "product", ["undo", grown], 0
    yield "product", ["calibrate", grown, "--good", root / "line" / "0.png"], 0
    yield "bench", ["bench", product], 0
    yield "doctor", ["doctor"], 0
    yield "doctor-offline", ["doctor", "--offline"], 0
    yield "demo", ["demo", "--data", dataset / "washer", "--shots", "2", "--output", tmp / "demo"], 0
    yield "encoders", ["encoders"], 0
    yield "parts", ["parts", "-o", tmp / "parts", "--category", "washer", "--count", "1", "--size", "32"], 0
    yield "zoo", ["zoo"], 0
    yield "zoo", ["zoo", "patchcore"], 0
    yield "zoo-survey", ["zoo", "--survey"], 0
    fit = ["fit", "spade", root / "good", "-o", tmp / "model", "--set", "image_size=64"]
    yield "fit", fit, 0
    yield "inspect", ["predict", tmp / "model", root / "good" / "1.png", "--overlays", tmp / "shown"], 0
    yield "datasets", ["datasets"], 0
    yield "datasets", ["datasets", "show", "mvtec"], 0
    yield "datasets-check", ["datasets", "check", "mvtec", dataset], 1
    yield "datasets-draw", ["datasets", "draw", root / "good", "-o", tmp / "drawn"], 0
    yield "benchmark-job", [*run_plan, "--dry-run"], 0
    yield "benchmark-run", run_plan, 0
    yield "benchmark-report", ["benchmark", "report", records], 0
    yield "benchmark-lists", ["benchmark", "lists", "mvtec", dataset, "-o", tmp / "lists.txt"], 0
    yield from outputs_of_a_station(root, tmp)


def outputs_of_a_station(root: Path, tmp: Path) -> Iterator[tuple[str, list[object], int]]:
    products, journal = tmp / "products", tmp / "journal.db"
    products.mkdir()
    shutil.copy(root / "p.fsad", products)
    opened = Journal.open(journal, "s")
    opened.start("begin")
    opened.add(make_record())
    opened.close()
    settings = ["--catalog", products, "--journal", journal, "--port", "0"]
    yield "serve-check", ["serve", "--check", *settings], 0
    yield "reinspect", ["reinspect", root / "p.fsad", root / "line", "-o", tmp / "again.jsonl"], 2
    yield "journal-export", ["journal", "export", journal, "-o", tmp / "all.csv"], 0
    yield "journal-event", ["journal", "events", journal], 0
    yield "journal-replicate", ["journal", "replicate", journal, tmp / "shared.db"], 0
    yield "backup", ["backup", products, journal, "-o", tmp / "b.tar"], 0
    yield "restore", ["restore", tmp / "b.tar", tmp / "restored"], 0
    yield "fleet-push", ["fleet", "push", products, tmp / "store"], 0
    yield "fleet-pull", ["fleet", "pull", tmp / "store", products], 0


def test_json_is_what_its_schema_says(workplace: Path, dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    pytest.importorskip("fewshot_ad.zoo.anomalib")
    seen = set()
    for kind, arguments, code in outputs(workplace, dataset, tmp_path):
        lines = run(*arguments, "--json", code=code)
        assert lines
        for line in lines:
            check(line, kind)
        seen.add(" ".join(str(word) for word in arguments[: 1 + (arguments[0] in GROUPS)]))
    assert {command for command in KINDS if command not in NOT_RUN} <= seen | {"export"}


def test_json_of_an_export(workplace: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    [line] = run("export", workplace / "p.fsad", tmp_path / "out", "--json")
    check(line, "export")


def test_an_inspection_of_python_has_the_same_fields(workplace: Path) -> None:
    fields = Inspector.load(workplace / "p.fsad").inspect(workplace / "line" / "1.png").as_dict()
    jsonschema.validate(fields, strict(schema_of("inspect")))
    shown = check(run("inspect", workplace / "p.fsad", workplace / "line" / "1.png", "--json", code=1)[0], "inspect")
    assert set(shown) - set(fields) == {"file", "device"}


def test_each_failed_file_is_one_error(workplace: Path) -> None:
    lines = run("inspect", workplace / "p.fsad", workplace / "line", workplace / "gone", "--json", code=2)
    kinds = [json.loads(line)["schema"] for line in lines]
    assert sorted(kinds) == [f"fewshot-ad/{kind}/1" for kind in ("error", "error", "inspect", "inspect")]
    errors = [check(line, "error") for line in lines if "fewshot-ad/error" in line]
    assert [Path(error["file"]).name for error in errors] == ["gone", "2.png"]


def test_the_table_has_every_region_and_its_schema(workplace: Path, tmp_path: Path) -> None:
    table = tmp_path / "verdicts.csv"
    result = CliRunner().invoke(
        app, ["inspect", str(workplace / "p.fsad"), str(workplace / "line"), "--csv", str(table)]
    )
    assert result.exit_code == 2
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert (
        " ".join(COLUMNS)
        == "file verdict score threshold severity x y width height ms error regions schema reason parts"
    )
    assert {row["schema"] for row in rows} == {"fewshot-ad/inspect-csv/1"}
    assert [row["verdict"] for row in rows] == ["GOOD", "ANOMALOUS", "ERROR"]
    assert rows[0]["regions"] == "[]"
    regions = json.loads(rows[1]["regions"])
    assert regions[0]["box"] == [int(rows[1][side]) for side in ("x", "y", "width", "height")]
    assert regions[0].keys() == {"box", "area", "peak", "severity"}
    for column in COLUMNS:
        assert f"`{column}`" in PAGE


@pytest.mark.parametrize("name", ["=cmd|'/c calc'!A1.png", "+1+2.png", "-2+3.png", "@SUM(A1).png"])
def test_a_cell_is_no_formula(name: str, inspector: Inspector, parts: list[np.ndarray]) -> None:
    assert failure_row(Path(name), "=oops")["file"] == f"'{name}"
    assert failure_row(Path(name), "=oops")["error"] == "'=oops"
    row = verdict_row(Path(name), inspector.inspect(parts[0]))
    assert row["file"] == f"'{name}"
    assert not any(str(cell).startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())


def test_a_cell_is_one_line_of_utf_8() -> None:
    row = failure_row(Path("\t=\x1b[2J\n\udcff.png"), "a\0b")
    assert (row["file"], row["error"]) == (r"\t=\x1b[2J\n\xff.png", r"a\x00b")


def test_a_negative_number_stays_a_number() -> None:
    assert failure_row(Path("-1.5"), "")["file"] == "-1.5"
