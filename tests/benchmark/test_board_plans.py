"""The plans under benchmarks/: each can be read, and those for public datasets make their jobs on tiny copies."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from fewshot_ad.benchmark.plan_file import read_plan
from fewshot_ad.benchmark.run import pending
from tests.datasets.layouts import LAYOUTS

PLANS = Path(__file__).parents[2] / "benchmarks"
FIVE = ("mvtec", "mvtec_3d", "btad", "kolektor_sdd", "visa")


@pytest.mark.parametrize("plan", sorted(PLANS.glob("*.yaml")), ids=lambda path: path.stem)
def test_it_can_be_read(plan: Path) -> None:
    assert read_plan(plan).methods


@pytest.mark.parametrize(("plan", "methods"), [("five_datasets", 16), ("five_datasets_detectors", 6)])
def test_five_public_datasets_make_a_job_for_each_method_and_category(plan: str, methods: int, tmp_path: Path) -> None:
    shutil.copy(PLANS / f"{plan}.yaml", tmp_path)
    expected = {name: {one.category for one in LAYOUTS[name](tmp_path / "data" / name)} for name in FIVE}
    jobs = pending(read_plan(tmp_path / f"{plan}.yaml"), tmp_path / "records.jsonl")
    assert {job.method.name for job in jobs} == {method.name for method in read_plan(PLANS / f"{plan}.yaml").methods}
    assert Counter(job.dataset.name for job in jobs) == {name: methods * len(expected[name]) for name in FIVE}
    assert {job.setting for job in jobs} == {"full-shot"}
