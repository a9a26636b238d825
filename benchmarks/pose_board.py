"""Does registration help parts that lie at any angle? Rotated views of the support set, registration, and both.

K = 4, three draws, 256 pixels, the default encoder. Real parts that are placed by hand, and the generated parts of
alignment.py with drawn defects, of products that neither encoder nor pose network was trained on.

    python benchmarks/pose_board.py             # resumable; needs ../shared/data for the real parts
    python benchmarks/pose_board.py --report    # the tables of what is on record
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from alignment import FLIPS, GENERATED, ROTATIONS, generate
from boards import HERE

from fewshot_ad.benchmark import record, tables
from fewshot_ad.benchmark.plan import Plan
from fewshot_ad.benchmark.plan_file import parse_plan
from fewshot_ad.benchmark.run import in_process, run_plan

REAL = ["cookie", "alien_toy", "casting", "hazelnut"]
VIEWS = {"flips": FLIPS, "flips + rotations": ROTATIONS}


def plan(data: Path, generated: Path) -> Plan:
    """Four ways."""
    methods: dict[str, Any] = {}
    for register in (False, True):
        for name, views in VIEWS.items():
            options = {"image_size": 256, "views": views, **({"register": True} if register else {})}
            methods[name + (", registered" if register else "")] = {"baseline": "fewshot_ad", "options": options}
    return parse_plan(
        {
            "name": "Registration",
            "methods": methods,
            "datasets": {
                "real parts": {
                    "layout": "mvtec",
                    "root": str(data),
                    "categories": REAL,
                    "support": "board_support.txt",
                },
                # A list that names none of them, since MVTec AD has a `screw`, too.
                "generated parts": {
                    "layout": "mvtec",
                    "root": str(generated),
                    "categories": GENERATED,
                    "support": "board_support.txt",
                },
            },
            "shots": [4],
            "protocol": {"test_limit": 60, "pixel_side": 256, "bootstrap": 0, "overlays": 0},
        },
        HERE,
    )


def main() -> None:
    """Run or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "pose_board.jsonl", help="record file, added to")
    parser.add_argument("--report", action="store_true", help="print the tables of what is recorded, compute nothing")
    args = parser.parse_args()
    if not args.report:
        parts = HERE / "out" / "parts_at_any_angle"
        generate(parts)
        for state in run_plan(plan(args.data.resolve(), parts.resolve()), args.out, in_process):
            print(f"{state.jobs}/{state.total} jobs, {state.failures} failed: {state.last or 'start'}", flush=True)
    print(tables.markdown(record.read(args.out), ("image_auroc", "pixel_auroc", "au_pro", "ms")))


if __name__ == "__main__":
    main()
