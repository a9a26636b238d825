from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from fewshot_ad.benchmark import record as ledger
from fewshot_ad.cli import app

runner = CliRunner()


def write_plan(folder: Path, root: Path, methods: object, **settings: object) -> Path:
    content = {
        "methods": methods,
        "datasets": {"tiny": {"layout": "mvtec", "root": str(root)}},
        "shots": [2],
        "draws": 2,
        "protocol": {"pixel_side": 32, "bootstrap": 50},
        **settings,
    }
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_run_and_report(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, dataset, {"mean": {}, "bad": {"baseline": "mean", "options": {"fail": True}}})
    out = tmp_path / "records.jsonl"
    command = ["benchmark", "run", str(plan), "--out", str(out), "--runner", "in-process"]
    dry_run = runner.invoke(app, [*command, "--dry-run"])
    assert len(dry_run.stdout.splitlines()) == 8
    assert not out.exists()
    first = runner.invoke(app, command)
    # A failed job is an error of the run, though all others are done.
    assert first.exit_code == 2
    assert "0 of 8 jobs are on record" in first.stdout
    assert "failed  bad tiny/washer few-shot K=2 draw 0 washer: ZooError: told to fail" in first.stdout
    assert len(ledger.read(out)) == 8
    again = runner.invoke(app, [*command, "--json"])
    assert json.loads(again.stdout)["jobs"] == 8
    page, table, latex = tmp_path / "page.html", tmp_path / "table.csv", tmp_path / "table.tex"
    report = runner.invoke(
        app, ["benchmark", "report", str(out), "--html", str(page), "--csv", str(table), "--latex", str(latex)]
    )
    assert report.exit_code == 0, report.output
    assert page.read_text().lower().startswith("<!doctype html>")
    assert "told to fail" in page.read_text()
    assert "mean" in table.read_text()
    assert "tabular" in latex.read_text()
    assert "washer" not in table.read_text()
    runner.invoke(app, ["benchmark", "report", str(out), "--csv", str(table), "--by-category"])
    assert ",tiny,washer,mean,image_auroc," in table.read_text()
    tables = runner.invoke(app, ["benchmark", "report", str(out)])
    assert "| mean |" in tables.stdout.replace("**", "")


def test_a_killed_run_goes_on_where_it_was(dataset: Path, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, dataset, {"patchcore": {"options": {"image_size": 64, "views": "none"}}}, draws=3)
    out = tmp_path / "records.jsonl"
    command = [sys.executable, "-m", "fewshot_ad", "benchmark", "run", str(plan), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not ledger.read(out) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = ledger.read(out)
    assert 1 <= len(first) < 6
    # In one process: five more would only take time.
    second = subprocess.run([*command, "--runner", "in-process"], capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert f"{len(first)} of 6 jobs are on record" in second.stdout
    lines = out.read_text().splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines}) == 6


def test_lists(dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "lists.txt"
    command = ["benchmark", "lists", "mvtec", str(dataset), "-o", str(file), "--shots"]
    result = runner.invoke(app, [*command, "3"])
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in file.read_text().splitlines()[1:]]
    assert [(row[0], row[1], len(row)) for row in rows] == [
        (category, str(draw), 5) for category in ("washer", "zinc") for draw in range(3)
    ]
    # Longer lists hold the shorter ones; what was changed by hand is kept.
    assert runner.invoke(app, [*command, "4"]).exit_code == 0
    row = file.read_text().splitlines()[1].split("\t")
    changed = file.read_text().replace("\t".join(row), "\t".join([*row[:2], row[3], row[2], *row[4:]]))
    file.write_text(changed)
    result = runner.invoke(app, [*command, "4"])
    assert result.exit_code == 2
    assert "got others of washer, draw 0" in result.stderr
    assert file.read_text() == changed
    assert runner.invoke(app, [*command, "4", "--force"]).exit_code == 0
    assert file.read_text() != changed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["benchmark", "run", "missing.yaml", "-o", "out.jsonl"], "expected a plan in YAML at missing.yaml"),
        (["benchmark", "report", "missing.jsonl"], "expected a record file at missing.jsonl"),
        (["benchmark", "report", "missing.jsonl", "--by-category"], "expected --by-category with --csv"),
    ],
)
def test_errors_say_what_to_do(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
