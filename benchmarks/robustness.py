"""Damage, kill, starve and crowd the product for an hour or two, and print one table of what held.

Seeded and resumable: outcomes are kept in the folder `--work`, and a run that was broken off goes on from there.

    python benchmarks/robustness.py --work /tmp/robustness                # everything
    python benchmarks/robustness.py --work /tmp/robustness --only images  # one part
    python benchmarks/robustness.py --work /tmp/robustness --share 0.01   # a hundredth of it, to see that it runs
    python benchmarks/robustness.py --work /tmp/robustness --record       # and put the table on record

Coverage-guided fuzzing needs `pip install atheris`; full disks need the right to mount a small tmpfs. Where either is
absent, the table says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import measured_tables
import measurements

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.robustness import live, mutated_artifacts, scarcity  # noqa: E402
from tests.robustness.corpus import variants  # noqa: E402
from tests.robustness.scene import Scene  # noqa: E402
from tests.robustness.watch import watched  # noqa: E402

Row = dict[str, Any]
HELD = frozenset({"read", "refused", "loaded", "held"})
# Freshly allocated memory holds these bytes in one pass and others in the next: a pixel that nobody wrote differs.
FILLS = ("85", "170")
# Free KiB of a disk, file handles, megabytes of address space.
SCARCE = ((0, 4, 16, 64, 256), (5, 6, 8, 12, 16, 32), (200, 300, 400, 500, 600, 700, 800, 900, 1000, 1500))


def images(count: int, seed: int, work: Path) -> Row:
    """Damaged images, each read in two processes whose fresh memory holds different bytes."""
    passes = [
        watched(
            "mutated_images",
            seed,
            count,
            work / f"images_{fill}.jsonl",
            {"MALLOC_PERTURB_": fill, "MALLOC_MMAP_THRESHOLD_": "1073741824"},
        )
        for fill in FILLS
    ]
    faults = _faults(passes[0])
    faults["other pixels"] += sum(a.get("digest") != b.get("digest") for a, b in zip(*passes, strict=True))
    read = sum(outcome["outcome"] == "read" for outcome in passes[0])
    return _row(f"damaged images of {len(variants())} variants", count, faults, f"{read:,} read, the others refused")


def artifacts(count: int, seed: int, work: Path) -> Row:
    """Damaged products, a third of them with a right hash."""
    outcomes = watched("mutated_artifacts", seed, count, work / "artifacts.jsonl")
    loaded = sum(outcome["outcome"] == "loaded" for outcome in outcomes)
    return _row(
        "damaged products, a third with a right hash",
        count,
        _faults(outcomes),
        f"{loaded:,} loaded, the others refused",
    )


def kills(count: int, seed: int, work: Path) -> Row:
    """Kill -9 during enroll, add, export and benchmark."""
    outcomes = watched("kills", seed, count, work / "kills.jsonl")
    killed = sum(bool(outcome.get("killed")) for outcome in outcomes)
    faults = Counter(outcome["outcome"] for outcome in outcomes if outcome["outcome"] not in HELD)
    return _row("kill -9 in enroll, add, export, benchmark", count, faults, f"{killed} before the end")


def resources(work: Path) -> Row:
    """Full and read-only disks, few handles, little memory."""
    file = work / "resources.jsonl"
    if not file.exists():
        with tempfile.TemporaryDirectory() as folder:
            rows = list(scarcity.rows(Scene.build(Path(folder) / "scene"), *SCARCE))
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    faults = Counter(fault for row in rows for fault in row["faults"])
    note = "" if scarcity.can_mount() else "no full disks: mounting is not allowed here"
    return _row("full or read-only disk, few handles, little memory", len(rows), faults, note)


def threads(seconds: float, work: Path) -> Row:
    """Eight threads against one."""
    result = _once(work / "threads.json", lambda: live.threads_agree(seconds))
    faults = Counter({"differs or fails": result["n_faults"]})
    return _row(f"inspections on 8 threads for {seconds:.0f} s, against one", result["cases"], faults)


def batch(seconds: float, work: Path) -> Row:
    """A long batch with bad images in it."""
    with tempfile.TemporaryDirectory() as folder:
        result = _once(work / "batch.json", lambda: live.long_batch(seconds, Path(folder)))
    note = f"{result['bad']} bad, memory + {result['growth_mb']:.0f} MB"
    return _row(f"images of one batch of {seconds / 60:.0f} minutes", result["cases"], Counter(result["faults"]), note)


def fuzz(target: str, seconds: float, seed: int, work: Path) -> Row:
    """Coverage-guided fuzzing with atheris."""
    what = f"{target}, coverage-guided, {seconds / 60:.0f} minutes"
    if importlib.util.find_spec("atheris") is None:
        return _row(what, 0, Counter(), "not run: pip install atheris")
    folder = work / f"fuzz_{target}"
    if not folder.exists():
        folder.mkdir(parents=True)
        seeds = variants() if target == "images" else {str(n): mutated_artifacts.damaged(seed, n) for n in range(30)}
        for number, data in enumerate(seeds.values()):
            (folder / f"seed-{number}").write_bytes(data)
    log = work / f"fuzz_{target}.log"
    if not log.exists() or "Done " not in log.read_text(errors="replace"):
        command = [sys.executable, "-m", "tests.robustness.fuzz", target, str(folder), str(int(seconds)), str(seed + 1)]
        with log.open("w") as file:
            subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, env=dict(os.environ), check=False)
    runs = re.findall(r"#(\d+)", log.read_text(errors="replace"))
    faults = Counter({"findings": len(list(folder.glob("finding-*")))})
    return _row(what, int(runs[-1]) if runs else 0, faults)


def _once(file: Path, measure: Callable[[], Row]) -> Row:
    """What was measured before, or now."""
    if not file.exists():
        file.write_text(json.dumps(measure()))
    return json.loads(file.read_text())


def _faults(outcomes: list[Mapping[str, Any]]) -> Counter[str]:
    faults = Counter(outcome["outcome"] for outcome in outcomes if outcome["outcome"] not in HELD)
    faults["over 5 s"] = sum("slow" in outcome for outcome in outcomes)
    faults["over 1.5 GB"] = sum("large" in outcome for outcome in outcomes)
    return faults


def _row(what: str, count: int, faults: Counter[str], note: str = "") -> Row:
    return {"what": what, "count": count, "faults": dict(+faults), "note": note}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of outcomes; go on from what it holds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="share of the full numbers and times")
    parser.add_argument("--only", help="parts, comma-separated: " + ", ".join(PARTS))
    measurements.add_record_option(parser)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    chosen = args.only.split(",") if args.only else list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"expected parts among {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    rows = []
    for name in chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows.append(PARTS[name](args.share, args.seed, args.work))
    measured_tables.finish("robustness", rows, args.record)
    sys.exit(any(row["faults"] for row in rows))


PARTS: dict[str, Callable[[float, int, Path], Row]] = {
    "images": lambda share, seed, work: images(round(10_000 * share), seed, work),
    "artifacts": lambda share, seed, work: artifacts(round(5_000 * share), seed, work),
    "kills": lambda share, seed, work: kills(round(100 * share), seed, work),
    "resources": lambda share, seed, work: resources(work),
    "threads": lambda share, seed, work: threads(60 * share, work),
    "batch": lambda share, seed, work: batch(600 * share, work),
    "fuzz-images": lambda share, seed, work: fuzz("images", 1800 * share, seed, work),
    "fuzz-artifacts": lambda share, seed, work: fuzz("artifacts", 1800 * share, seed, work),
}


if __name__ == "__main__":
    main()
