"""One bad image among the good ones: is it left out, or at least named, and what happens to good ones.

For each product several draws of K good images are enrolled, as they are, and again with a real defective image in
each position in turn. Outcomes are kept in the file `--work`, and a run that was broken off goes on from there.

    python benchmarks/hygiene.py --data ../shared/data --work /tmp/hygiene.jsonl
    python benchmarks/hygiene.py --data ../shared/data --work /tmp/hygiene.jsonl --products bottle cookie --draws 2
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


def outcome(
    support: Sequence[Path], bad: int | None, judged: Sequence[Path], size: Any, encoder: Encoder
) -> dict[str, Any]:
    """What one enrollment did with its images."""
    inspector = Inspector.from_support(support, encoder=encoder, image_size=size, views="hflip,vflip,rotate=180")
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
        "| product | bad: left out | left out or named | all defects pass, no word | good: left out | named |",
        "|---|---|---|---|---|---|",
    ]
    for product in dict.fromkeys(row["product"] for row in rows):
        of = [row for row in rows if row["product"] == product]
        bad, clean = [r for r in of if "bad" in r], [r for r in of if "bad" not in r]
        left_out = np.mean([r["left_out"][r["bad"]] for r in bad])
        told = np.mean([r["left_out"][r["bad"]] or r["named"][r["bad"]] for r in bad])
        blind = sum(r["passed"] == 1 and not r["named"][r["bad"]] for r in bad)
        lost = np.mean([r["left_out"] for r in clean])
        named = np.mean([np.logical_and(r["named"], np.logical_not(r["left_out"])) for r in clean])
        lines.append(f"| {product} | {left_out:.0%} | {told:.0%} | {blind} of {len(bad)} | {lost:.1%} | {named:.1%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of products in MVTec layout")
    parser.add_argument("--work", type=Path, required=True, help="file of the outcomes, one JSON object a line")
    parser.add_argument("--products", nargs="+", default=PRODUCTS)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--image-size", default="256", help="in pixels, or auto")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    size = args.image_size if args.image_size == "auto" else int(args.image_size)
    encoder = load_encoder(threads=args.threads)
    rows = [json.loads(line) for line in args.work.read_text().splitlines()] if args.work.exists() else []
    done = {row["key"] for row in rows}
    with args.work.open("a") as file:
        for draw in range(args.draws):
            for product in args.products:
                folder = args.data / product
                judged = defective_images(folder)[-JUDGED:]
                for bad, support in support_sets(folder, draw, args.shots):
                    key = f"{product} {draw} {args.shots} {size} {bad}"
                    if key in done:
                        continue
                    row = {"key": key, "product": product, **outcome(support, bad, judged, size, encoder)}
                    rows.append(row)
                    file.write(json.dumps(row) + "\n")
                    file.flush()
    print(table([row for row in rows if row["key"].split()[2:4] == [str(args.shots), str(size)]]))


if __name__ == "__main__":
    main()
