"""A line with an operator: what accepting, rejecting and the word of drift do to the verdicts that follow.

A product is enrolled from eight good images. Then up to 1,000 others pass, a quarter of them defective, each once, and
the light goes down to `DIMMED` of what it was, evenly over the line. Three times over: nobody corrects anything; an
operator accepts every false reject, and rejects every escape that is shown to him (one in two); and he asks for drift
every `ASKED` images as well, and where it says that the light has changed, puts the lamp right, which goes on fading as
before. Real products have fewer images than that; generated parts have 1,000.

    python benchmarks/operator_line.py                # resumable; with ../shared/data, or --data DIR
    python benchmarks/operator_line.py --report       # the table of what is recorded
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measured_tables import NONE, table

from fewshot_ad import Inspector, SupportSetError
from fewshot_ad.enrollment.probes import DrawnDefect
from fewshot_ad.images import read_image
from fewshot_ad.training.parts import render

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "shared" / "data"
OUT = HERE / "out" / "operator_line.jsonl"
REAL = ("bottle", "casting", "cookie", "elpv_mono", "alien_toy", "magnetic_tile")
# Of each category, a variant.
GENERATED = {"gear": 0, "chip": 3, "connector": 4}
SIDE, DRAWN = 256, 0.05
SHOTS, DRAWS = 8, 3
# Images of a line at most, and the share of them that is defective.
LENGTH, DEFECTIVE = 1000, 0.25
DIMMED = 0.85
SHOWN, ASKED = 0.5, 20
# A line is told in so many stretches.
STRETCHES = 5
WHO = {
    "alone": "nobody corrects",
    "operator": "accept, reject",
    "lamp": "accept, reject, drift: the lamp is put right",
}

# An image of the line, made when it is its turn, and whether it is defective.
Image = tuple[Callable[[], np.ndarray], bool]


def main() -> None:
    """Simulate what is not recorded yet, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of products in the layout of MVTec AD")
    parser.add_argument("--out", type=Path, default=OUT, help="record file, added to")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--report", action="store_true", help="print the tables of what is recorded")
    args = parser.parse_args()
    if args.report:
        print(report(read_rows(args.out)), steps(read_rows(args.out)), sep="\n\n")
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = {(row["product"], row["draw"]) for row in read_rows(args.out)}
    real = [name for name in REAL if (args.data / name).is_dir()]
    for draw in range(args.draws):
        for product in (*GENERATED, *real):
            if (product, draw) not in known:
                row = {"product": product, "draw": draw, **simulated(product, draw, args.data)}
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{product}: draw {draw}", flush=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The recorded lines."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def real_line(folder: Path, rng: np.random.Generator) -> tuple[list[Any], list[Image]]:
    """Support images and the line of a real product."""
    good = sorted((folder / "train" / "good").iterdir()) + sorted((folder / "test" / "good").iterdir())
    bad = sorted(path for kind in (folder / "test").iterdir() if kind.name != "good" for path in kind.iterdir())
    good = [good[at] for at in rng.permutation(len(good))]
    bad = [bad[at] for at in rng.permutation(len(bad))]
    support, good = good[:SHOTS], good[SHOTS:]
    length = int(min(LENGTH, len(good) / (1 - DEFECTIVE), len(bad) / DEFECTIVE))
    count = round(length * DEFECTIVE)
    passing = [(path, False) for path in good[: length - count]] + [(path, True) for path in bad[:count]]

    def image(path: Path) -> Callable[[], np.ndarray]:
        return lambda: read_image(path)

    return list(support), [(image(path), defective) for path, defective in passing]


def generated_line(category: str, draw: int) -> tuple[list[Any], list[Image]]:
    """Support images and the line of a generated part: its defects are drawn on it."""
    first = 10_000 * draw

    def image(seed: int, defective: bool) -> Callable[[], np.ndarray]:
        def make() -> np.ndarray:
            part = render(category, first + seed, SIDE, variant=GENERATED[category], placement="loose")
            kind = ("spot", "scratch", "patch")[seed % 3]
            return DrawnDefect(0, kind, DRAWN, first + seed).draw(part) if defective else part

        return make

    support = [image(seed, False)() for seed in range(SHOTS)]
    bad = round(LENGTH * DEFECTIVE)
    return support, [(image(SHOTS + at, at < bad), at < bad) for at in range(LENGTH)]


def simulated(product: str, draw: int, data: Path) -> dict[str, Any]:
    """A line without and with an operator."""
    rng = np.random.default_rng([81, draw])
    support, line = generated_line(product, draw) if product in GENERATED else real_line(data / product, rng)
    line = [line[at] for at in rng.permutation(len(line))]
    inspector = Inspector.from_support(support, product=product)
    row: dict[str, Any] = {"length": len(line), "defective": [defective for _, defective in line]}
    for who in WHO:
        own = copy.deepcopy(inspector)
        row[who] = judged(own, line, who, np.random.default_rng([82, draw]))
        if who == "operator":
            row["bytes_after_undo"] = undone(own)
    return row


def undone(inspector: Inspector) -> bool:
    """Whether the file is the same to the byte once an acceptance has been taken back."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.fsad", Path(folder) / "after.fsad"
        inspector.save(before)
        image = inspector.references[0].content.copy()
        image[:8, :8] ^= 1
        inspector.accept(image, force=True)
        inspector.undo()
        inspector.save(after)
        return before.read_bytes() == after.read_bytes()


def judged(inspector: Inspector, line: Sequence[Image], who: str, rng: np.random.Generator) -> dict[str, Any]:
    """Verdicts on a line, and what was done meanwhile."""
    rejected: list[bool] = []
    refused: list[str] = []
    seconds: dict[str, list[float]] = {"accept": [], "reject": [], "drift": []}
    repaired: list[int] = []
    gain, fading = 1.0, (1 - DIMMED) / len(line)
    for at, (make, defective) in enumerate(line):
        gain -= fading
        image = np.clip(np.rint(make() * gain), 0, 255).astype(np.uint8)
        rejected.append(bool(inspector.inspect(image).is_anomalous))
        if who == "alone":
            continue
        step = "accept" if rejected[-1] and not defective else "reject"
        wrong = rejected[-1] != defective
        if wrong and (step == "accept" or rng.uniform() < SHOWN):
            start = time.perf_counter()
            try:
                if step == "accept":
                    inspector.accept(image)
                else:
                    inspector.reject(image)
            except SupportSetError as error:
                refused.append(str(error)[:200])
            seconds[step].append(time.perf_counter() - start)
        if who == "lamp" and at % ASKED == ASKED - 1:
            start = time.perf_counter()
            drift = inspector.drift()
            seconds["drift"].append(time.perf_counter() - start)
            if drift.status == "changed" and drift.kind in ("brightness", "contrast", "tint"):
                gain = 1.0
                repaired.append(at + 1)
                inspector.drift(restart=True)
    return {
        "rejected": rejected,
        "refused": refused,
        "seconds": {step: [round(one, 4) for one in times] for step, times in seconds.items()},
        "repaired": repaired,
        "vectors": sum(len(bank) for bank in inspector.banks),
    }


def rates(row: dict[str, Any], who: str) -> list[tuple[float, ...]]:
    """False rejects and escapes in percent of each stretch of a line; NaN where there is nothing to reject or pass."""
    found: list[tuple[float, ...]] = []
    for defective, rejected in zip(
        np.array_split(np.asarray(row["defective"]), STRETCHES),
        np.array_split(np.asarray(row[who]["rejected"]), STRETCHES),
        strict=True,
    ):
        good, bad = rejected[~defective], ~rejected[defective]
        # A short line may have no defective image in a stretch.
        found.append(tuple(100 * float(one.mean()) if one.size else float("nan") for one in (good, bad)))
    return found


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Means over products of the means of their draws: false rejects / escapes of each stretch, then of the line."""
    lines = []
    for kind, products in (("generated, 1,000 images", GENERATED), ("real", REAL)):
        for who, name in WHO.items():
            by_product = [
                _mean([rates(row, who) for row in rows if row["product"] == product], 0)
                for product in products
                if any(row["product"] == product for row in rows)
            ]
            if not by_product:
                continue
            stretches, whole = _mean(by_product, 0), _mean(by_product, 1)
            cells = [f"{rejects:.1f} / {escapes:.1f}" for rejects, escapes in (*stretches, whole.mean(axis=0))]
            lines.append([kind, name, *cells, f"{whole[:, 0].max():.1f} / {whole[:, 1].max():.1f}"])
    head = [f"{100 * k // STRETCHES} to {100 * (k + 1) // STRETCHES}%" for k in range(STRETCHES)]
    return table(["line", "operator", *head, "whole line", "worst product of each"], lines)


def _mean(values: Any, axis: int) -> np.ndarray:
    """Mean along an axis of what is there; NaN where nothing is."""
    values = np.asarray(values, float)
    there = ~np.isnan(values)
    count = there.sum(axis)
    return np.where(count > 0, np.where(there, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def steps(rows: Sequence[dict[str, Any]]) -> str:
    """Seconds of each step, what was refused, and whether undo gave the same bytes."""
    lines = []
    for step in ("accept", "reject", "drift"):
        times = [one for row in rows for one in row["lamp"]["seconds"][step]]
        shown = [f"{value:.2f}" for value in np.quantile(times, (0.5, 0.9, 1.0))] if times else [NONE] * 3
        lines.append([f"`{step}`", f"{len(times)}", *shown])
    lines.append(["of these refused", f"{sum(len(row['lamp']['refused']) for row in rows)}", "", "", ""])
    lines.append(["lamp put right", f"{sum(len(row['lamp']['repaired']) for row in rows)}", "", "", ""])
    same = sum(row["bytes_after_undo"] for row in rows)
    lines.append(["the same bytes after `undo`", f"{same} of {len(rows)} lines", "", "", ""])
    return table(["step", "how often", "median, s", "90%, s", "slowest, s"], lines)


if __name__ == "__main__":
    main()
