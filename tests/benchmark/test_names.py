"""Names of files and categories that are no UTF-8, or would write to the terminal, fail nothing and hurt nothing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from fewshot_ad.benchmark.support import read_lists
from fewshot_ad.cli import app

HOSTILE = b"=was\xffher\x1b[31m"


@pytest.fixture
def hostile(dataset: Path, tmp_path: Path) -> Path:
    """The dataset with a category and image names that most systems would not make, and Linux does."""
    if sys.platform != "linux":
        pytest.skip("this system allows no such names")
    root = tmp_path / "mvtec"
    shutil.copytree(dataset / "washer", root / os.fsdecode(HOSTILE))
    good = root / os.fsdecode(HOSTILE) / "train" / "good"
    for number, name in enumerate((b"\xff\x1b[2J.png", b"a\nb.png", b"\xe2\x80\xae.png")):
        (good / f"00{number}.png").rename(good / os.fsdecode(name))
    return root


def test_a_run_and_all_its_reports(hostile: Path, mean_baseline: str, tmp_path: Path) -> None:
    def invoke(*arguments: object) -> str:
        result = CliRunner().invoke(app, ["benchmark", *map(str, arguments)])
        assert result.exit_code == 0, result.output
        assert "\x1b" not in result.output
        return result.output

    lists, plan, record = tmp_path / "lists.txt", tmp_path / "plan.yaml", tmp_path / "records.jsonl"
    invoke("lists", "mvtec", hostile, "-o", lists, "--shots", 3)
    assert {category for category, _ in read_lists(lists)} == {r"=was\xffher\x1b[31m"}
    content = {
        "methods": {"mean": {}},
        "datasets": {"mvtec": {"root": str(hostile), "support": str(lists)}},
        "shots": [3],
        "draws": 2,
        "protocol": {"pixel_side": 32, "bootstrap": 50},
    }
    plan.write_text(yaml.safe_dump(content))
    assert r"=was\xffher\x1b[31m" in invoke("run", plan, "-o", record, "--runner", "in-process")
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert [line["status"] for line in lines] == ["done", "done"]
    assert all("\\udc" not in json.dumps(line) for line in lines)
    files = {kind: tmp_path / f"table.{kind}" for kind in ("html", "csv", "markdown", "latex")}
    outputs = [word for kind, file in files.items() for word in (f"--{kind}", file)]
    invoke("report", record, "--plan", plan, "--by-category", *outputs)
    for file in files.values():
        text = file.read_text(encoding="utf-8")
        assert not {"\x1b", "\u202e", "\udcff"} & set(text)
    assert r",'=was\xffher\x1b[31m," in files["csv"].read_text(encoding="utf-8")
    assert invoke("run", plan, "-o", record, "--dry-run") == ""
