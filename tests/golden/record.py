"""Write the golden record anew: `python -m tests.golden.record`.

Only when a change of behavior is what was asked for; the difference belongs into that change's message.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fewshot_ad import Inspector
from tests.conftest import SHARED
from tests.golden.cases import HERE, crops, shared_cases, shipped_cases, stored
from tests.golden.machine import this_machine

STORED = HERE / "brick_v1.fsad"


def main() -> None:
    machine = this_machine()
    if "--stored" in sys.argv or not STORED.is_file():
        Inspector.from_support(
            crops("brick")[:4], product="brick", views="hflip,gray,rotate=90", image_size=128, budget=150
        ).save(STORED)
    write(HERE / "shipped.json", machine, {name: make() for name, make in shipped_cases()} | {"stored": stored(STORED)})
    if (SHARED / "bottle").is_dir():
        write(HERE / "shared.json", machine, {name: make() for name, make in shared_cases(SHARED)})


def write(path: Path, machine: dict[str, str], cases: dict[str, Any]) -> None:
    path.write_text(json.dumps({"machine": machine, "cases": cases}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
