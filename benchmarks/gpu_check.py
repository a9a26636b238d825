"""Every baseline of this package on a GPU beside the CPU: does it run there, say the same, and how long does it take.

    python benchmarks/gpu_check.py [--baselines padim mkd] [--out gpu_check.jsonl]

Tiny settings and generated parts: what is checked is that nothing stays behind on the CPU and that the scores agree,
not how good they are. Methods that draw random numbers while they train may part from the CPU's by rounding.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fewshot_ad.training.pairs import draw_defects  # noqa: E402
from fewshot_ad.training.parts import render  # noqa: E402
from fewshot_ad.zoo import Labeled, cards, create  # noqa: E402
from tests.zoo.tiny import TINY  # noqa: E402

OWN = [name for name, card in cards().items() if card.source == "fewshot_ad" and name != "fewshot_ad"]


def check(name: str, device: str, precision: str) -> dict[str, Any]:
    """Fit and predict on a device; scores and seconds, or what went wrong."""
    good = [render("gear", n, 96) for n in range(4)]
    defects = []
    for n in (8, 9):
        bad, mask = draw_defects(render("gear", n, 96), np.random.default_rng(n))
        defects.append(Labeled(bad, mask, "drawn"))
    start = time.perf_counter()
    try:
        method = create(name, seed=3, device=device, precision=precision, **TINY.get(name, {}))
        method.fit(good[:2], defects)
        scores = method.predict(good[2:]).scores
    except Exception as error:  # every way to fail is a row
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]}
    return {"scores": [float(score) for score in scores], "seconds": round(time.perf_counter() - start, 2)}


def main() -> None:
    """Check all, print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baselines", nargs="+", default=OWN)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    print(f"| baseline | {args.device} | CPU, s | {args.device}, s | bf16, s | largest difference of a score |")
    rows = []
    for name in args.baselines:
        row = {"baseline": name, "cpu": check(name, "cpu", "f32"), "there": check(name, args.device, "f32")}
        row["bf16"] = check(name, args.device, "bf16")
        rows.append(row)
        if "error" in row["there"] or "error" in row["cpu"]:
            print(f"| {name} | {row['there'].get('error')} | CPU: {row['cpu'].get('error')} |", flush=True)
            continue
        here, there = np.array(row["cpu"]["scores"]), np.array(row["there"]["scores"])
        difference = float(np.abs(there / here - 1).max())
        seconds = f"{row['cpu']['seconds']} | {row['there']['seconds']}"
        bf16 = row["bf16"].get("seconds", row["bf16"].get("error"))
        print(f"| {name} | runs | {seconds} | {bf16} | {difference:.2%} |", flush=True)
    if args.out:
        args.out.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
