"""One bad image among the good ones: is it left out, or at least named, and what happens to good ones.

For each product several draws of K good images are enrolled, as they are, and again with a real defective image in
each position in turn. Outcomes are kept in the file `--out`, and a run that was broken off goes on from there. The
limits of `enrollment.hygiene` were set on these products, so the table is no proof for others.

    python benchmarks/hygiene.py --data ../shared/data
    python benchmarks/hygiene.py --data ../shared/data --products bottle cookie --draws 2
    python benchmarks/hygiene.py --report
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.support import distinct_names
from fewshot_ad.images import list_images

PRODUCTS = (
    "bottle",
    "cookie",
    "hazelnut",
    "transistor",
    "leather",
    "casting",
    "alien_toy",
    "elpv_mono",
    "magnetic_tile",
)
JUDGED = 12
OUT = Path(__file__).parent / "out" / "hygiene.jsonl"


def support_sets(folder: Path, draw: int, shots: int) -> Iterator[tuple[int | None, list[Path]]]:
    """Good images, and the same with a defective one in each position in turn: (position, images)."""
    rng = np.random.default_rng([draw, shots])
    good = good_images(folder)
    bad = defective_images(folder)
    support = [good[i] for i in rng.permutation(len(good))[:shots]]
    yield None, support
    for position, at in enumerate(rng.choice(len(bad), len(support), replace=len(bad) < len(support))):
        yield position, [*support[:position], bad[at], *support[position + 1 :]]


def good_images(folder: Path) -> list[Path]:
    """All good images; those of the test as well where the others are too few for several draws."""
    train = list_images(folder / "train" / "good")
    return train if len(train) >= 16 else [*train, *list_images(folder / "test" / "good")]


def defective_images(folder: Path) -> list[Path]:
    """All defective images, the kinds in turn."""
    kinds = [list_images(kind) for kind in sorted((folder / "test").iterdir()) if kind.name != "good"]
    return [kind[i] for i in range(max(map(len, kinds))) for kind in kinds if i < len(kind)]


def outcome(support: Sequence[Path], bad: int | None, judged: Sequence[Path], encoder: Encoder) -> dict[str, Any]:
    """What one enrollment did with its images."""
    inspector = Inspector.from_support(support, encoder=encoder)
    kept = {name for name, _ in inspector.enrollment.support}
    names = distinct_names(support)
    left_out = [name not in kept for name in names]
    notes = [note for note in inspector.enrollment.notes if "unlike" in note]
    named = [any(name in note for note in notes) for name in names]
    others = [image for image in judged if image not in support]
    passed = float(np.mean([not inspector.inspect(image).is_anomalous for image in others]))
    row = {"left_out": left_out, "named": named, "threshold": inspector.threshold, "passed": passed}
    return row if bad is None else {**row, "bad": bad}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown."""
    lines = [
        "| product | bad: left out | left out or named | all defects pass, no word | defects missed, with | without | "
        "good: left out | named |",
        "|---|---|---|---|---|---|---|---|",
    ]
    figures = []
    for product in sorted({row["product"] for row in rows}):
        of = [row for row in rows if row["product"] == product]
        bad, clean = [r for r in of if "bad" in r], [r for r in of if "bad" not in r]
        left_out = np.mean([r["left_out"][r["bad"]] for r in bad])
        told = np.mean([r["left_out"][r["bad"]] or r["named"][r["bad"]] for r in bad])
        blind = sum(r["passed"] == 1 and not r["named"][r["bad"]] for r in bad)
        lost = np.mean([r["left_out"] for r in clean])
        named = np.mean([np.logical_and(r["named"], np.logical_not(r["left_out"])) for r in clean])
        missed, missed_clean = (np.mean([r["passed"] for r in one]) for one in (bad, clean))
        figures.append((left_out, told, blind, len(bad), missed, missed_clean, lost, named))
        lines.append(_line(f"`{product}`", *figures[-1]))
    mean = np.mean(figures, axis=0)
    blind, total = (int(sum(row[at] for row in figures)) for at in (2, 3))
    return "\n".join([*lines, _line("mean", *mean[:2], blind, total, *mean[4:])])


def _line(name: str, left_out: float, told: float, blind: int, bad: int, *shares: float) -> str:
    missed, missed_clean, lost, named = shares
    return (
        f"| {name} | {left_out:.0%} | {told:.0%} | {blind} of {bad} | {missed:.0%} | {missed_clean:.0%} | "
        f"{lost:.1%} | {named:.1%} |"
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The recorded outcomes."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of products in MVTec layout")
    parser.add_argument("--out", type=Path, default=OUT, help="record file, added to")
    parser.add_argument("--report", action="store_true", help="print the table of what is recorded")
    parser.add_argument("--products", nargs="+", default=PRODUCTS)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    if args.data is not None:
        collect(args)
    if args.report or args.data is not None:
        print(table(read_rows(args.out)))


def collect(args: argparse.Namespace) -> None:
    """Enroll what is not recorded yet."""
    logging.disable(logging.WARNING)
    encoder = load_encoder(threads=args.threads)
    done = {row["key"] for row in read_rows(args.out)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a") as file:
        for draw in range(args.draws):
            for product in args.products:
                folder = args.data / product
                judged = defective_images(folder)[-JUDGED:]
                for bad, support in support_sets(folder, draw, args.shots):
                    key = f"{product} {draw} {args.shots} {bad}"
                    if key in done:
                        continue
                    row = {"key": key, "product": product, **outcome(support, bad, judged, encoder)}
                    file.write(json.dumps(row) + "\n")
                    file.flush()


if __name__ == "__main__":
    main()
