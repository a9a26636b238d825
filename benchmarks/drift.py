"""How soon a drift is told, and how seldom without cause: `Inspector.drift` on real photographs that change slowly.

Each product is enrolled from eight good images. A line of 400 of its other good images (drawn with replacement) stays
as it is for 100 images, and then, over 300, becomes darker by 30%, softer, shifted by 8% of its width, or warmer. Told
is the image at which `drift` says so for the first time; beside it, from when on the share of rejected good parts is
twice what it was (means of 40 images, at least 10%). Stationary lines of 10,000 images are drawn from the measures of
the same images.

    python benchmarks/drift.py                # resumable; with ../shared/data, or --data DIR
    python benchmarks/drift.py --report       # the table of what is recorded
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measured_tables import NONE, table

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.enrollment.embedding import places_of
from fewshot_ad.images import read_image
from fewshot_ad.inspection.drift import DriftMonitor
from fewshot_ad.product.relighting import relit

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "shared" / "data"
OUT = HERE / "out" / "drift.jsonl"
PRODUCTS = ("bottle", "casting", "cookie", "elpv_mono", "alien_toy", "magnetic_tile")
SHOTS, STEADY, LENGTH, MOST = 8, 100, 400, 150
STREAMS, STATIONARY = 10, 10_000
WINDOW, LEAST = 40, 0.1


def shifted(image: np.ndarray, share: float) -> np.ndarray:
    """An image moved to the right by a share of its width, mirrored at its edge."""
    matrix = np.array([[1, 0, share * image.shape[1]], [0, 1, 0]], np.float32)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)


def softened(image: np.ndarray, share: float) -> np.ndarray:
    """An image out of focus by a share of its side."""
    sigma = share * (image.shape[0] * image.shape[1]) ** 0.5
    return image if sigma < 0.05 else cv2.GaussianBlur(image, (0, 0), sigma)


CHANGES: dict[str, tuple[str, Callable[[np.ndarray, float], np.ndarray]]] = {
    "darker, to 70%": ("brightness", lambda image, at: relit(image, (1 - 0.3 * at,) * 3)),
    "softer, to 0.8% of the side": ("sharpness", lambda image, at: softened(image, 0.008 * at)),
    "shifted, to 8% of the width": ("place", lambda image, at: shifted(image, 0.08 * at)),
    "warmer, red +10%, blue -15%": ("tint", lambda image, at: relit(image, (1 + 0.1 * at, 1, 1 - 0.15 * at))),
}


def main() -> None:
    """Measure what is not recorded yet, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of products in the layout of MVTec AD")
    parser.add_argument("--out", type=Path, default=OUT, help="record file, added to")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--report", action="store_true", help="print the table of what is recorded")
    args = parser.parse_args()
    if args.report:
        print(report(read_rows(args.out)))
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = {(row["product"], row["draw"]) for row in read_rows(args.out)}
    encoder = load_encoder()
    for draw in range(args.draws):
        for product in PRODUCTS:
            if (product, draw) not in known and (args.data / product).is_dir():
                row = {"product": product, "draw": draw, **measured(args.data / product, draw, encoder)}
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{product}: draw {draw}", flush=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The recorded figures."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measured(folder: Path, draw: int, encoder: Any) -> dict[str, Any]:
    """One product: what is told of each change, and false alarms of stationary lines."""
    paths = sorted((folder / "train" / "good").iterdir()) + sorted((folder / "test" / "good").iterdir())
    rng = np.random.default_rng([61, draw])
    order = rng.permutation(len(paths))
    inspector = Inspector.from_support([paths[at] for at in order[:SHOTS]], product=folder.name, encoder=encoder)
    rest = [read_image(paths[at]) for at in order[SHOTS : SHOTS + MOST]]
    seen = [inspector.inspect(image) for image in rest]

    def monitor() -> DriftMonitor:
        model = inspector.model
        places = places_of(inspector.references, min(model.image_sizes), encoder.spec.multiple)
        appearances = () if model.expectations is None else model.expectations.appearances
        return DriftMonitor(appearances, inspector.calibration.scores, places)

    alarms = []
    for stream in range(STREAMS):
        one = monitor()
        alarm: list[str] = []
        for count, at in enumerate(np.random.default_rng([62, draw, stream]).integers(0, len(seen), STATIONARY), 1):
            one.see(seen[at])
            # Looked at often, and all the same.
            if not alarm and count % 50 == 0 and (drift := one.drift()).status == "changed":
                alarm = [drift.message]
        alarms += alarm
    changes = {}
    for name, (kind, change) in CHANGES.items():
        one, rejected, told = monitor(), list[bool](), None
        for count, at in enumerate(np.random.default_rng([63, draw]).integers(0, len(rest), LENGTH)):
            image = change(rest[at], max(0.0, (count - STEADY) / (LENGTH - STEADY)))
            inspection = inspector.inspect(image)
            rejected.append(inspection.is_anomalous)
            one.see(inspection)
            if told is None and (drift := one.drift()).status == "changed":
                told = {"image": count + 1, "kind": drift.kind, "message": drift.message}
        changes[name] = {
            "expected": kind,
            "told": told,
            "doubled": doubled(rejected),
            "before": float(np.mean(rejected[:STEADY])),
            "at_end": float(np.mean(rejected[-WINDOW:])),
        }
    return {"images": len(rest), "alarms": alarms, "changes": changes}


def doubled(rejected: Sequence[bool]) -> int | None:
    """The image from which on twice as many are rejected as before, and for good; None where that never happens."""
    limit = max(2 * float(np.mean(rejected[:STEADY])), LEAST)
    means = np.convolve(rejected, np.ones(WINDOW) / WINDOW, "valid")
    over = np.flatnonzero(means <= limit)
    first = int(over[-1]) + 1 if len(over) else 0
    return None if first >= len(means) else first + WINDOW


def report(rows: Sequence[dict[str, Any]]) -> str:
    """One line per change, and one for lines that do not change."""
    lines = []
    for name in CHANGES:
        own = [row["changes"][name] for row in rows]
        told = [one for one in own if one["told"] is not None]
        right = sum(one["told"]["kind"] == one["expected"] for one in told)
        rising = [one for one in own if one["doubled"] is not None]
        before = sum(one["told"] is not None and one["told"]["image"] <= one["doubled"] for one in rising)
        after = [one["told"]["image"] - STEADY for one in told]
        spread = f"{np.median(after):.0f} ({min(after)} to {max(after)})" if after else NONE
        ends = f"{100 * float(np.mean([one['at_end'] for one in own])):.0f}"
        lines.append(
            [name, f"{len(told)} of {len(own)}", f"{right} of {len(told)}", spread, f"{before} of {len(rising)}", ends]
        )
    streams = len(rows) * STREAMS
    alarms = sum(len(row["alarms"]) for row in rows)
    lines.append([f"none, {STATIONARY:,} images each", f"{alarms} of {streams}", NONE, NONE, NONE, NONE])
    return table(
        [
            "change",
            "told",
            "its kind right",
            "images after it began",
            "before false rejects had doubled",
            "good parts rejected at the end (%)",
        ],
        lines,
    )


if __name__ == "__main__":
    main()
