"""Does registration help parts that lie at any angle? Rotated views of the support set, registration, and both.

K = 4, three draws, 256 pixels, the default encoder. Real parts that are placed by hand, and the generated parts of
alignment.py with drawn defects, of products that neither encoder nor pose network was trained on.

    python benchmarks/pose_board.py             # resumable; needs ../shared/data for the real parts
    python benchmarks/pose_board.py --report    # the tables of what is on record
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment import FLIPS, ROTATIONS, parts_plan, run_script

from fewshot_ad.benchmark.plan import Plan

REAL = ["cookie", "alien_toy", "casting", "hazelnut"]
VIEWS = {"flips": FLIPS, "flips + rotations": ROTATIONS}


def plan(data: Path, generated: Path) -> Plan:
    """Four ways."""
    methods: dict[str, Any] = {}
    for register in (False, True):
        for name, views in VIEWS.items():
            options = {"image_size": 256, "views": views, **({"register": True} if register else {})}
            methods[name + (", registered" if register else "")] = {"baseline": "fewshot_ad", "options": options}
    return parts_plan("Registration", methods, REAL, data, generated)


if __name__ == "__main__":
    run_script(__doc__, "pose_board", plan)
