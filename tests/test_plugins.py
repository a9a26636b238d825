"""Baselines and readers that another installed package brings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fewshot_ad.zoo")

ROOT = Path(__file__).resolve().parents[1]
HOW_TO = ROOT / "docs" / "how-to"
CHILD = """
import json, logging, sys
import numpy as np
logging.basicConfig(level=logging.WARNING)
from fewshot_ad import zoo
from fewshot_ad.benchmark.plan_file import parse_plan
from fewshot_ad.datasets import dataset_cards, open_dataset

method = zoo.create("mean_color", power=2.0)
method.fit([np.full((8, 8, 3), 100, np.uint8)])
plan = parse_plan({"methods": {"mean_color": {}}, "datasets": {"brackets": {"root": sys.argv[1]}}, "shots": [1],
                   "draws": 1}, __import__("pathlib").Path())
print(json.dumps({
    "source": zoo.cards()["mean_color"].source,
    "score": float(method.predict([np.full((8, 8, 3), 101, np.uint8)]).scores[0]),
    "samples": len(list(open_dataset("brackets", sys.argv[1]).samples())),
    "jobs": [str(job) for job in plan.jobs()],
}))
"""


def code_of(page: str) -> str:
    """The whole example of a how-to, as a package of its own would have it."""
    return re.findall(r"```python\n(\"\"\".*?)```", (HOW_TO / page).read_text(encoding="utf-8"), re.DOTALL)[0]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages: one whole, one broken."""
    folder = tmp_path / "site"
    files = {
        "toy_methods.py": code_of("add-a-baseline.md").replace("trains=", 'source="toy_methods", trains='),
        "toy_readers.py": code_of("add-a-dataset.md"),
        "toy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
        "toy-1.0.dist-info/entry_points.txt": "[fewshot_ad.baselines]\nmethods = toy_methods\n\n"
        "[fewshot_ad.datasets]\nreaders = toy_readers\n",
        "broken_methods.py": "raise SystemExit('made for another version')\n",
        "broken-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n",
        "broken-1.0.dist-info/entry_points.txt": "[fewshot_ad.baselines]\nit = broken_methods\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_an_installed_package_brings_a_baseline_and_a_dataset(site: Path, tmp_path: Path) -> None:
    for name in ("ok/1.png", "ok/2.png", "nok/1.png"):
        (tmp_path / "copy" / "bracket" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / "bracket" / name).write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "copy")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["source"] == "toy_methods"
    assert seen["score"] == pytest.approx(3.0)
    assert seen["samples"] == 3
    assert len(seen["jobs"]) == 1
    # The broken one is named and keeps nothing else from working.
    assert "broken: its entry point broken_methods in fewshot_ad.baselines cannot be loaded" in done.stderr
    assert "made for another version" in done.stderr


def test_the_examples_are_as_short_as_promised() -> None:
    for page in ("add-a-baseline.md", "add-a-dataset.md"):
        lines = [line for line in code_of(page).splitlines() if line.strip()]
        assert len(lines) <= 40, page
