from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from fewshot_ad.benchmark.record import Record, append, comparable, read
from fewshot_ad.errors import BenchmarkError


def record(key: str, **changes: object) -> Record:
    values: dict[str, object] = {
        "key": key,
        "method": "m",
        "baseline": "mean",
        "options": {"side": 8},
        "dataset": "d",
        "layout": "mvtec",
        "category": "nut",
        "setting": "few-shot",
        "shots": 4,
        "draw": 0,
        "seed": 0,
        "protocol": {"pixel_side": 256},
        "status": "done",
        "figures": {"image_auroc": 0.9},
        "intervals": {"image_auroc": (0.8, 0.95)},
        "support": ("a.png", "b.png"),
    }
    return Record(**{**values, **changes})  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "new" / "records.jsonl"
    assert read(file) == []
    append(file, record("a"))
    append(file, record("b", status="failed", reason="no"))
    assert read(file) == [record("a"), record("b", status="failed", reason="no")]


def test_the_last_line_of_a_job_counts(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    append(file, record("a", status="failed", reason="no"))
    append(file, record("a"))
    assert read(file) == [record("a")]


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_kill_in_mid_line_costs_that_line_alone(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "records.jsonl"
    append(file, record("a"))
    append(file, record("b"))
    os.truncate(file, file.stat().st_size - cut)
    assert [r.key for r in read(file)] == ["a"] if cut > 1 else True
    append(file, record("c"))
    assert [r.key for r in read(file)] == (["a", "c"] if cut > 1 else ["a", "b", "c"])


def test_foreign_and_newer_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text('{"hello": 1}\n')
    with pytest.raises(BenchmarkError, match="line 1: expected a benchmark record"):
        read(file)
    file.write_text(json.dumps({"key": "a"}) + "\n")
    with pytest.raises(BenchmarkError, match="line 1: expected a benchmark record"):
        read(file)
    # A plan given by mistake must not get records at its end.
    file.write_text("methods: {padim: {}}\n")
    with pytest.raises(BenchmarkError, match="line 1: expected a benchmark record"):
        read(file)
    with pytest.raises(BenchmarkError, match="cannot read it"):
        read(tmp_path)
    file.write_text(json.dumps({**dataclasses.asdict(record("a")), "schema": 99}) + "\n")
    with pytest.raises(BenchmarkError, match="newer fewshot-ad"):
        read(file)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchmarkError, match="cannot be written"):
        append(tmp_path / "file" / "records.jsonl", record("a"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": {"pixel_side": 64}}, "one protocol"),
        ({"options": {"side": 9}}, "one meaning of 'm'"),
        ({"seed": 7, "draw": 0}, "one record of m"),
    ],
)
def test_what_does_not_compare_is_not_put_in_one_table(change: dict[str, object], message: str) -> None:
    comparable([record("a"), record("b", draw=1), record("c", category="bolt")])
    with pytest.raises(BenchmarkError, match=message):
        comparable([record("a"), record("b", **{"draw": 1, **change})])


def test_what_is_skipped_is_told(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    append(file, record("a"))
    append(file, record("b"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-100] + b"\n\n" + whole)
    notes: list[str] = []
    assert [r.key for r in read(file, notes.append)] == ["a", "b"]
    assert notes == [f"{file}, line 2: cut short or damaged, so it is skipped and its job counts as not done."]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draw": "first"}, "line 1: expected|draw: expected a whole number, got 'first'"),
        ({"figures": {"image_auroc": "high"}}, r"figures.image_auroc: expected a number, got 'high'"),
        ({"status": "perhaps"}, "status: expected one of done, failed, got 'perhaps'"),
        ({"support": [1]}, r"support\[0\]: expected text, got 1"),
        ({"schema": 0}, "expected a record of schema 1, got 0. No version has written that"),
        ({"schema": None}, "expected a record of schema 1, got None"),
    ],
)
def test_a_field_of_the_wrong_kind(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps({**dataclasses.asdict(record("a")), **change}) + "\n")
    with pytest.raises(BenchmarkError, match=message):
        read(file)


def test_names_from_elsewhere_do_not_reach_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(dataclasses.asdict(record("a", category="x\x1b[2J\udcff", support=("a\n",)))) + "\n")
    (one,) = read(file)
    assert (one.category, one.support) == (r"x\x1b[2J\xff", (r"a\n",))
