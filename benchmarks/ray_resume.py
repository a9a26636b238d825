"""A Ray run over five datasets that is killed in the middle and goes on: nothing is lost, nothing doubled.

The plans five_datasets.yaml and five_datasets_detectors.yaml on tiny copies in the layouts of the tests, every method
cut to seconds, on a Ray cluster of this machine. The whole run, workers and all, is killed by SIGKILL when a third of
the jobs are on record, and started again by the same command. Prints the number of jobs, of records after either run,
and what was doubled or missing.

    python benchmarks/ray_resume.py      # 15 minutes on two cores; needs the extras zoo and ray
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import measurements
import yaml

from fewshot_ad.benchmark import record
from fewshot_ad.benchmark.plan_file import read_plan

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.datasets.layouts import LAYOUTS  # noqa: E402 - of the repository, not of the package
from tests.zoo.anomalib.test_methods import TINY  # noqa: E402

RANDOM = {"weights": "random"}
CUT: dict[str, dict[str, Any]] = {
    **{f"anomalib_{name}": {"image_size": 64, **options} for name, options in TINY.items()},
    "anomalib_csflow": {**TINY["csflow"], "image_size": 128},
    "rkde": {"image_size": 96},
    **{f"yolov{n}": {**RANDOM, "image_size": 64, "epochs": 1} for n in (3, 5, 6, 8, 9, 10)},
}
SHARE = 1 / 3


def write_plans(folder: Path) -> list[Path]:
    """Both plans with cut methods, and the datasets' copies, in a folder."""
    plans = []
    for name in ("five_datasets", "five_datasets_detectors"):
        plan = yaml.safe_load((HERE / f"{name}.yaml").read_text())
        for dataset, entry in plan["datasets"].items():
            if not (folder / entry["root"]).exists():
                LAYOUTS[dataset](folder / entry["root"])
        plan["methods"] = {method: {"options": CUT[method]} for method in plan["methods"]}
        plans.append(folder / f"{name}.yaml")
        plans[-1].write_text(yaml.safe_dump(plan))
    return plans


def start(plan: Path, out: Path) -> subprocess.Popen[bytes]:
    """The run of a plan on Ray, in a group of its own."""
    command = [sys.executable, "-m", "fewshot_ad", "benchmark", "run", str(plan), "-o", str(out), "--runner", "ray"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def run_and_kill(plan: Path, out: Path, jobs: int) -> int:
    """Run a plan until a share of its jobs is on record, kill it; returns how many records there are."""
    run = start(plan, out)
    while run.poll() is None and lines(out) < SHARE * jobs:
        time.sleep(0.2)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    # Ray's own processes are in groups of their own.
    stop = [shutil.which("ray") or str(Path(sys.executable).parent / "ray"), "stop", "--force"]
    subprocess.run(stop, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return lines(out)


def lines(path: Path) -> int:
    """How many records a file holds."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements.add_record_option(parser)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for plan in write_plans(Path(temporary)):
            out = plan.with_suffix(".jsonl")
            asked = read_plan(plan).keys()
            killed_at = run_and_kill(plan, out, len(asked))
            start(plan, out).wait()
            keys = Counter(one.key for one in record.read(out))
            failed = [one for one in record.read(out) if one.status == "failed"]
            rows.append(
                {
                    "plan": plan.name,
                    "jobs": len(asked),
                    "killed": killed_at,
                    "end": len(keys),
                    "doubled": sum(n > 1 for n in keys.values()),
                    "missing": len(asked - keys.keys()),
                    "failed": len(failed),
                }
            )
            print(*rows[-1].items(), flush=True)
            for one in failed[:5]:
                print(f"  {one.method} {one.dataset}/{one.category}: {one.reason}")
    if args.record:
        measurements.append("ray_resume", rows)


if __name__ == "__main__":
    main()
