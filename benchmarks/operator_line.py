"""A line with an operator: what accepting false rejects and rejecting escapes does to the verdicts that follow.

A product is enrolled from eight good images. Then the rest of its images pass, good and defective ones mixed, twice:
once nobody corrects anything, and once an operator accepts every false reject, and rejects every escape that is shown
to him (one in two). With `--drift` the light goes down to `DIMMED` of what it was, evenly over the line. Every image
passes once, so no verdict is on an image that was accepted.

    python benchmarks/operator_line.py --data DIR          # products in the layout of MVTec AD; resumable
    python benchmarks/operator_line.py --data DIR --drift
    python benchmarks/operator_line.py --report            # the table of what is recorded
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measured_tables import table

from fewshot_ad import Inspector, SupportSetError
from fewshot_ad.images import read_image

HERE = Path(__file__).parent
OUT = HERE / "out" / "operator_line.jsonl"
PRODUCTS = ("bottle", "casting", "cookie", "elpv_mono", "alien_toy", "magnetic_tile")
SHOTS, DRAWS = 8, 3
# Images of a line at most, and the share of them that is defective.
LENGTH, DEFECTIVE = 160, 0.25
DIMMED = 0.85
SHOWN = 0.5

Image = tuple[np.ndarray, bool]


def main() -> None:
    """Simulate what is not recorded yet, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of products in the layout of MVTec AD")
    parser.add_argument("--out", type=Path, default=OUT, help="record file, added to")
    parser.add_argument("--products", nargs="*", default=list(PRODUCTS))
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--drift", action="store_true", help="dim the light over the line")
    parser.add_argument("--report", action="store_true", help="print the table of what is recorded")
    args = parser.parse_args()
    if args.data is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        known = {(r["product"], r["draw"], r["drift"]) for r in read_rows(args.out)}
        for product in args.products:
            for draw in range(args.draws):
                if (product, draw, args.drift) not in known:
                    row = {"product": product, "draw": draw, "drift": args.drift}
                    row |= simulated(args.data / product, draw, args.drift)
                    with args.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(f"{product}: draw {draw}", flush=True)
    if args.report:
        print(report(read_rows(args.out)))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The recorded lines."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def simulated(folder: Path, draw: int, drift: bool) -> dict[str, Any]:
    """A line without and with an operator."""
    rng = np.random.default_rng([81, draw])
    good = sorted((folder / "train" / "good").iterdir()) + sorted((folder / "test" / "good").iterdir())
    bad = [path for kind in sorted((folder / "test").iterdir()) if kind.name != "good" for path in kind.iterdir()]
    order = rng.permutation(len(good))
    support, rest = [good[at] for at in order[:SHOTS]], [good[at] for at in order[SHOTS:]]
    bad = [sorted(bad)[at] for at in rng.permutation(len(bad))[: round(LENGTH * DEFECTIVE)]]
    rest = rest[: LENGTH - len(bad)]
    passing = [(path, False) for path in rest] + [(path, True) for path in bad]
    passing = [passing[at] for at in rng.permutation(len(passing))]
    inspector = Inspector.from_support(support, product=folder.name)
    line = [
        (_dimmed(read_image(path), 1 - (1 - DIMMED) * at / len(passing) if drift else 1.0), defective)
        for at, (path, defective) in enumerate(passing)
    ]
    return {
        "length": len(line),
        "defective": [defective for _, defective in line],
        "alone": _judged(copy.deepcopy(inspector), line, None),
        "operator": _judged(inspector, line, rng),
    }


def _dimmed(image: np.ndarray, gain: float) -> np.ndarray:
    return image if gain == 1 else np.clip(np.rint(image * gain), 0, 255).astype(np.uint8)


def _judged(inspector: Inspector, line: Sequence[Image], rng: np.random.Generator | None) -> dict[str, Any]:
    """Verdicts on a line; with a generator, of an operator who sees half of the escapes."""
    rejected, refused, seconds, reasons = [], 0, [], []
    for image, defective in line:
        rejected.append(inspector.inspect(image).is_anomalous)
        if rng is None:
            continue
        start = time.perf_counter()
        try:
            if rejected[-1] and not defective:
                inspector.accept(image)
            elif defective and not rejected[-1] and rng.uniform() < SHOWN:
                inspector.reject(image)
            else:
                continue
        except SupportSetError as error:
            refused += 1
            reasons.append(str(error)[:200])
        seconds.append(time.perf_counter() - start)
    return {
        "rejected": [bool(one) for one in rejected],
        "refused": refused,
        "reasons": reasons,
        "seconds": [round(one, 3) for one in seconds],
        "threshold": inspector.threshold,
    }


def rates(row: dict[str, Any], who: str, half: int) -> tuple[float, float]:
    """False rejects and escapes in the first (0) or second half of a line."""
    defective, rejected = (np.array_split(np.asarray(one), 2)[half] for one in (row["defective"], row[who]["rejected"]))
    return float(rejected[~defective].mean()), float((~rejected[defective]).mean())


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Means over products of the means of their draws."""
    lines = []
    for drift in sorted({row["drift"] for row in rows}):
        for who, name in (("alone", "nobody corrects"), ("operator", "accept and reject")):
            cells = []
            for half in (0, 1):
                by_product = {
                    product: np.mean(
                        [rates(r, who, half) for r in rows if (r["product"], r["drift"]) == (product, drift)], 0
                    )
                    for product in sorted({row["product"] for row in rows if row["drift"] == drift})
                }
                mean = np.mean(list(by_product.values()), axis=0)
                cells += [f"{100 * mean[0]:.1f}", f"{100 * mean[1]:.1f}"]
            lines.append(["dimmed" if drift else "steady", name, *cells])
    header = ["light", "operator", "false rejects, first half", "escapes", "false rejects, second half", "escapes"]
    return table(header, lines)


if __name__ == "__main__":
    main()
