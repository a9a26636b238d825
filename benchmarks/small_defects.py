"""The board of small defects: generated parts with defects of 1% of the side, at several working scales.

    python benchmarks/small_defects.py              # enroll and score what is not recorded yet; resumable
    python benchmarks/small_defects.py --report     # the tables of what is recorded
    python benchmarks/small_defects.py --picture F  # one defective part of each category, and its defect enlarged

Needs no data: parts come from `fewshot_ad.training.parts`, of a variant that no encoder was trained on. The defects are
drawn here, in other shapes and from other seeds than those of `enrollment.probes`, by which enrollment chooses its
scale and threshold. Nothing of the test parts reaches an enrollment.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewshot_ad import Inspector, ScoringConfig
from fewshot_ad.encoder import Encoder, load_encoder
from fewshot_ad.metrics import auroc
from fewshot_ad.training.parts import render

HERE = Path(__file__).parent
OUT = HERE / "out" / "small_defects.jsonl"
CATEGORIES = (
    *("biscuit", "bottle_rim", "circuit_board", "connector", "impeller"),
    *("leather", "magnet", "milled_block", "tile", "woven_fabric"),
)
SIDE, VARIANT = 1024, 101
SHOTS, GOOD, DEFECTIVE = 8, 12, 24
# Of a defect, as shares of the side: diameter of a spot and of a patch; length and width of a scratch.
DEFECT, SCRATCH_LENGTH, SCRATCH_WIDTH = 0.01, 0.03, 0.0025
# How much of the way to black, or to white on dark parts, spots and scratches go.
CONTRAST = 0.5
# A patch is taken from the most different of so many places: one like its surroundings would be no defect.
PLACES = 16
# Parts sit in the middle of their images.
MIDDLE = (0.3, 0.7)
# One scale each with the same views, which at 1024 pixels are the price of an enrollment.
FLIPS = "hflip,vflip,rotate=180"
CONFIGS: dict[str, dict[str, Any]] = {
    "256 px": {"image_size": 256, "views": FLIPS},
    "512 px": {"image_size": 512, "views": FLIPS},
    "1024 px": {"image_size": 1024, "views": FLIPS},
    # 328 patches instead of 81, where a defect of 1% of the side is seen by some 25.
    "1024 px, 2% of all patches": {"image_size": 1024, "views": FLIPS, "scoring": ScoringConfig(max_patches=None)},
    "default": {},
    "min_defect 1%": {"min_defect": DEFECT},
}

Record = dict[str, Any]
Image = np.ndarray


def main() -> None:
    """Collect, report or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="record file, added to")
    parser.add_argument("--categories", nargs="*", default=list(CATEGORIES), choices=CATEGORIES)
    parser.add_argument("--configs", nargs="*", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--report", action="store_true", help="print the tables of what is recorded")
    parser.add_argument("--picture", type=Path, help="write a picture of the defects and stop")
    args = parser.parse_args()
    if args.picture is not None:
        draw(args.picture)
        return
    if not args.report:
        collect(args)
    print(report(read_records(args.out)))


def read_records(path: Path) -> list[Record]:
    """The recorded enrollments, one per category and configuration."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def collect(args: argparse.Namespace) -> None:
    """Enroll what is not recorded yet, and score its test parts."""
    known = {(record["category"], record["config"]) for record in read_records(args.out)}
    encoder = load_encoder(threads=args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for category in args.categories:
        todo = [config for config in args.configs if (category, config) not in known]
        if not todo:
            continue
        support = [part(category, seed) for seed in range(SHOTS)]
        good = [part(category, 1000 + seed) for seed in range(GOOD)]
        bad = [defective(category, seed) for seed in range(DEFECTIVE)]
        for config in todo:
            record = {"category": category, "config": config, **run(support, good, bad, CONFIGS[config], encoder)}
            with args.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{category}: {config}, AUROC {record['auroc']:.3f}", flush=True)


def run(
    support: list[Image], good: list[Image], bad: list[tuple[str, Image]], settings: dict[str, Any], encoder: Encoder
) -> Record:
    """One enrollment, held to the test parts at the threshold it ships with."""
    start = time.perf_counter()
    inspector = Inspector.from_support(support, product="part", encoder=encoder, **settings)
    seconds = time.perf_counter() - start
    inspector.warm_up()
    results = [inspector.inspect(image) for image in (*good, *(image for _, image in bad))]
    scores = [result.score for result in results]
    found = inspector.sensitivity
    return {
        "image_sizes": list(inspector.enrollment.settings.image_sizes),
        "views": len(inspector.enrollment.settings.views),
        "enroll_s": round(seconds, 2),
        "ms": round(float(np.median([result.timings_ms["total"] for result in results])), 2),
        "threshold": inspector.threshold,
        "false_reject_rate": inspector.calibration.false_reject_rate,
        "auroc": auroc([0] * len(good) + [1] * len(bad), scores),
        "good": scores[: len(good)],
        "bad": scores[len(good) :],
        "kinds": [kind for kind, _ in bad],
        "said": None if found is None else {"caught": found.caught, "auroc": found.auroc, "is_blind": found.is_blind},
    }


def part(category: str, seed: int) -> Image:
    """A good part, (SIDE, SIDE, 3) uint8 RGB."""
    return render(category, seed, SIDE, variant=VARIANT)


def defective(category: str, seed: int) -> tuple[str, Image]:
    """The kind of defect, and another part with it."""
    kind = list(KINDS)[seed % len(KINDS)]
    rng = np.random.default_rng([4711, CATEGORIES.index(category), seed])
    return kind, KINDS[kind](part(category, 2000 + seed), rng)


def spot(image: Image, rng: np.random.Generator) -> Image:
    """A ragged chip of seven corners."""
    angles = (np.arange(7) + rng.uniform(-0.3, 0.3, 7)) * 2 * np.pi / 7
    reach = rng.uniform(0.6, 1.0, (7, 1)) * DEFECT / 2 * SIDE
    corners = _place(rng) + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return _darker(image, lambda mask: cv2.fillPoly(mask, [_fixed(corners)], 255, cv2.LINE_AA, SHIFT))


def scratch(image: Image, rng: np.random.Generator) -> Image:
    """A hairline with a kink."""
    steps = rng.uniform(0, 2 * np.pi) + np.array([0.0, rng.uniform(-0.6, 0.6)])
    legs = SCRATCH_LENGTH / 2 * SIDE * np.stack([np.cos(steps), np.sin(steps)], axis=1)
    points = _place(rng) + np.vstack([-legs[:1], [[0, 0]], legs[1:]])
    width = max(1, int(SCRATCH_WIDTH * SIDE))
    return _darker(image, lambda mask: cv2.polylines(mask, [_fixed(points)], False, 255, width, cv2.LINE_AA, SHIFT))


def patch(image: Image, rng: np.random.Generator) -> Image:
    """A disc of the part from elsewhere, turned by a quarter."""
    radius = round(DEFECT / 2 * SIDE)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)[..., None] > 0
    x, y = _place(rng).round().astype(int)
    here = np.s_[y - radius : y + radius + 1, x - radius : x + radius + 1]
    others = [_place(rng).round().astype(int) for _ in range(PLACES)]
    pieces = [np.rot90(image[b - radius : b + radius + 1, a - radius : a + radius + 1]) for a, b in others]
    piece = max(pieces, key=lambda one: float(np.abs(one.astype(int) - image[here]).mean()))
    changed = image.copy()
    changed[here] = np.where(disc, piece, image[here])
    return changed


KINDS: dict[str, Callable[[Image, np.random.Generator], Image]] = {"spot": spot, "scratch": scratch, "patch": patch}
# OpenCV takes coordinates as whole numbers of 1/16 pixel.
SHIFT = 4


def _fixed(points: Image) -> Image:
    return np.rint(points * 2**SHIFT).astype(np.int32)


def _place(rng: np.random.Generator) -> Image:
    return rng.uniform(*MIDDLE, 2) * SIDE


def _darker(image: Image, paint: Callable[[Image], Any]) -> Image:
    """The image where a mask is painted on the way to black, or to white if it is dark there."""
    mask = np.zeros(image.shape[:2], np.uint8)
    paint(mask)
    target = 0.0 if image[mask > 127].mean() > 90 else 255.0
    weight = CONTRAST / 255 * mask[..., None]
    return np.rint(image * (1 - weight) + target * weight).astype(np.uint8)


def report(records: Iterable[Record]) -> str:
    """The tables, in Markdown: means and worst category of each configuration, then the AUROC by category."""
    by_config = {name: [r for r in records if r["config"] == name] for name in CONFIGS}
    by_config = {name: rows for name, rows in by_config.items() if rows}
    lines = [
        "| enrollment | image AUROC | worst category | false rejects | promised | escapes | ms | scales |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in by_config.items():
        worst = min(rows, key=lambda r: r["auroc"])
        rejected, escaped = np.mean([_rates(r) for r in rows], axis=0)
        scales = sorted({_scales(r) for r in rows})
        counts = ", ".join(f"{one} ({sum(_scales(r) == one for r in rows)})" for one in scales)
        lines.append(
            f"| {name} | {np.mean([r['auroc'] for r in rows]):.3f} | {worst['category']} {worst['auroc']:.3f} | "
            f"{rejected:.1%} | {np.mean([r['false_reject_rate'] for r in rows]):.1%} | {escaped:.1%} | "
            f"{np.median([r['ms'] for r in rows]):.1f} | {counts} |"
        )
    kinds = [
        f"| {name} | " + " | ".join(f"{_of_kind(rows, k):.3f}" for k in KINDS) + " |"
        for name, rows in by_config.items()
    ]
    lines += ["", f"| enrollment | {' | '.join(KINDS)} |", "|---" * (1 + len(KINDS)) + "|", *kinds]
    lines += ["", f"| category | {' | '.join(by_config)} |", "|---" * (1 + len(by_config)) + "|"]
    for category in CATEGORIES:
        cells = [
            next((f"{r['auroc']:.3f}" for r in rows if r["category"] == category), "") for rows in by_config.values()
        ]
        lines.append(f"| {category} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _scales(record: Record) -> str:
    return "+".join(str(size) for size in record["image_sizes"])


def _rates(record: Record) -> tuple[float, float]:
    """Share of good parts rejected, and of defective ones passed."""
    good, bad = np.asarray(record["good"]), np.asarray(record["bad"])
    return float(np.mean(good > record["threshold"])), float(np.mean(bad <= record["threshold"]))


def _of_kind(records: list[Record], kind: str) -> float:
    """Mean AUROC of the parts with one kind of defect against the good ones."""
    figures = []
    for record in records:
        bad = [score for score, one in zip(record["bad"], record["kinds"], strict=True) if one == kind]
        figures.append(auroc([0] * len(record["good"]) + [1] * len(bad), [*record["good"], *bad]))
    return float(np.mean(figures))


def draw(path: Path) -> None:
    """Write each category's first defect of each kind: the part as a whole, and the defect enlarged."""
    rows = []
    for category in CATEGORIES:
        tiles = []
        for seed in range(len(KINDS)):
            clean, (_, image) = part(category, 2000 + seed), defective(category, seed)
            y, x = (int(np.median(where)) for where in np.nonzero((clean != image).any(axis=2)))
            crop = image[max(0, y - 40) : y + 40, max(0, x - 40) : x + 40]
            tiles += [cv2.resize(one, (240, 240), interpolation=cv2.INTER_AREA) for one in (image, crop)]
        rows.append(np.hstack(tiles))
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
