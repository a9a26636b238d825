"""The long run of `benchmarks/robustness.py`, in small: every part of it, with nothing found."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.robustness import kills, live, scarcity
from tests.robustness.corpus import variants
from tests.robustness.scene import Scene
from tests.robustness.watch import outcomes, watched

IMAGES, ARTIFACTS = 240, 90
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory fills and limits are Linux's")


def faults(results: list[dict[str, object]]) -> list[dict[str, object]]:
    good = {"read", "refused", "loaded", "held"}
    return [r for r in results if r["outcome"] not in good or "slow" in r or "large" in r]


@linux
def test_damaged_images_are_read_the_same_twice_or_refused(tmp_path: Path) -> None:
    assert len(variants()) >= 80
    passes = [
        watched("mutated_images", 1, IMAGES, tmp_path / f"{fill}.jsonl", {"MALLOC_PERTURB_": fill})
        for fill in ("85", "170")
    ]
    assert not faults(passes[0])
    assert [r.get("digest") for r in passes[0]] == [r.get("digest") for r in passes[1]]
    counts = Counter(r["outcome"] for r in passes[0])
    assert min(counts["read"], counts["refused"]) > IMAGES // 20, "the damages are too mild or too coarse"


def test_damaged_products_load_whole_or_are_refused(tmp_path: Path) -> None:
    assert not faults(watched("mutated_artifacts", 1, ARTIFACTS, tmp_path / "artifacts.jsonl"))


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_what_kill_9_leaves(number: int) -> None:
    assert kills.case(5, number)["outcome"] == "held"


def test_a_crash_is_an_outcome_and_the_run_goes_on(tmp_path: Path) -> None:
    results = watched("crashing", 0, 4, tmp_path / "results.jsonl")
    assert [r["outcome"] for r in results] == ["held", "held", "crash", "held"]


def test_a_run_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    first = {"number": 0, "outcome": "held", "of": "the first run"}
    file.write_text(json.dumps(first) + "\n" + '{"number": 1, "outc')
    assert len(outcomes(file)) == 1
    assert watched("crashing", 0, 2, file)[0] == first


@linux
def test_scarcity_loses_nothing(tmp_path: Path) -> None:
    if not scarcity.can_mount():
        print("NO FULL DISK TRIED: this process may not mount a tmpfs")
    rows = list(scarcity.rows(Scene.build(tmp_path / "scene"), [16], [8], [700]))
    assert not [row for row in rows if row["faults"]]


def test_eight_threads_agree_with_one() -> None:
    result = live.threads_agree(3)
    assert result["cases"] > 50
    assert not result["faults"]


def test_a_long_batch_answers_each_image(tmp_path: Path) -> None:
    result = live.long_batch(3, tmp_path, bad_share=0.1)
    assert result["bad"]
    assert not result["faults"]
