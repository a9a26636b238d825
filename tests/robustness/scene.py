"""A small factory on disk, for tests that kill, fill and starve: good images, a product, a plan; and its commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from tests.conftest import make_part

ROOT = Path(__file__).resolve().parents[2]
SIDE = 96
ENROLL = ("--views", "none", "--image-size", "96", "--threads", "1")
PLAN = json.dumps(
    {
        "name": "robustness",
        "datasets": {"parts": {"layout": "mvtec", "root": "."}},
        "shots": [2],
        "draws": 2,
        "protocol": {"pixel_side": 64, "bootstrap": 10},
        "methods": {
            "ours": {"baseline": "fewshot_ad", "options": {"image_size": 96, "views": "none"}},
        },
    }
)


@dataclass(frozen=True)
class Scene:
    """Where things lie.

    Attributes:
        folder: Holds everything.
        good: Folder of five good images; the first three are enrolled in `product`.
        line: Folder of good and defective images.
        product: An enrolled product.
        plan: A benchmark plan of two jobs.
    """

    folder: Path
    good: Path
    line: Path
    product: Path
    plan: Path

    @classmethod
    def build(cls, folder: Path) -> Scene:
        """Take the photographs, write the plan and enroll the product."""
        scene = cls(folder, folder / "good", folder / "line", folder / "p.fsad", folder / "plan.yaml")
        for i in range(5):
            _write(scene.good / f"{i}.png", i)
            _write(folder / f"washer/train/good/{i}.png", i)
        for i in range(2):
            _write(scene.line / f"good{i}.png", 50 + i)
            _write(scene.line / f"bad{i}.png", 60 + i, defect=True)
            _write(folder / f"washer/test/good/{i}.png", 50 + i)
            _write(folder / f"washer/test/blot/{i}.png", 60 + i, defect=True)
        scene.plan.write_text(PLAN)
        run(scene.commands()["enroll"], folder, check=True)
        return scene

    def commands(self) -> dict[str, list[str]]:
        """The commands that write something, by name."""
        first, product = [str(self.good / f"{i}.png") for i in range(3)], str(self.product)
        return {
            "enroll": ["enroll", *first, "-o", product, "--force", *ENROLL],
            "add": ["add", product, str(self.good), "--threads", "1"],
            "export": ["export", product, str(self.folder / "exported"), "--target", "onnx", "--force"],
            "benchmark": [
                "benchmark",
                "run",
                str(self.plan),
                "-o",
                str(self.folder / "record.jsonl"),
                "--runner",
                "in-process",
            ],
        }


def _write(path: Path, seed: int, defect: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(make_part(seed, SIDE, defect), cv2.COLOR_RGB2BGR))


def start(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a command of the program."""
    return subprocess.Popen(
        [sys.executable, "-m", "fewshot_ad", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command of the program to its end."""
    process = start(arguments, folder, environment)
    output, errors = process.communicate(timeout=300)
    done = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
    if check and done.returncode:
        raise AssertionError(f"{arguments}: exit {done.returncode}\n{output}\n{errors}")
    return done
