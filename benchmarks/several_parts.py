"""Several parts on one image: each judged by itself, beside the same images judged as a whole.

Trays of six parts are put together from photographs of single parts (cut out, turned at random, laid on an even ground
with a fall-off of light and sensor noise) and from generated parts. Four trays of good parts are enrolled, with
`parts="auto", expect=6` and without, and by PatchCore. Then come trays of good parts that were not enrolled, trays with
one defective part (real defects, or defects drawn on generated parts), with a part missing, with something else beside
the parts, and with two parts that touch.

    python benchmarks/several_parts.py                # resumable; with ../shared/data, or --data DIR
    python benchmarks/several_parts.py --report       # the table of what is recorded
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measured_tables import NONE, table

from fewshot_ad import Inspector
from fewshot_ad.enrollment.probes import DrawnDefect
from fewshot_ad.images import read_image
from fewshot_ad.metrics import auroc
from fewshot_ad.registration.blobs import blobs_of
from fewshot_ad.training.parts import render

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "shared" / "data"
OUT = HERE / "out" / "several_parts.jsonl"
# The ground that parts are laid on, RGB: that of the photographs, so that their edges show nothing.
REAL = {"bottle": (250, 250, 250), "alien_toy": (235, 235, 238)}
# Of each category, a variant on an even ground.
GENERATED = {"gear": 0, "key": 7, "chip": 3, "connector": 4, "knurled_cap": 1}
PART_SIDE = 190
TRAY_HW, COLUMNS, ROWS, PARTS = (768, 1024), 3, 2, 6
SHOTS, DRAWS = 4, 3
GOOD, DEFECTIVE, MISSING, FOREIGN, TOUCHING = 12, 12, 6, 4, 4
# Size of the defects that are drawn on generated parts, as a share of the side of a part's picture.
DRAWN = 0.06

Part = tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Measure what is not recorded yet, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of products in the layout of MVTec AD")
    parser.add_argument("--out", type=Path, default=OUT, help="record file, added to")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--report", action="store_true", help="print the table of what is recorded")
    args = parser.parse_args()
    if args.report:
        print(report(read_rows(args.out)))
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = {(row["product"], row["draw"]) for row in read_rows(args.out)}
    real = [name for name in REAL if (args.data / name).is_dir()]
    for draw in range(args.draws):
        for product in (*real, *GENERATED):
            if (product, draw) not in known:
                row = {"product": product, "draw": draw, **measured(product, draw, args.data)}
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{product}: draw {draw}", flush=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The recorded figures."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cut(image: np.ndarray) -> Part | None:
    """The part on a photograph of one: its picture and its mask; None where none can be told."""
    shrink = PART_SIDE / max(image.shape[:2])
    small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    blobs = [blob for blob in blobs_of(small) or [] if blob.area > 0.05 * small.shape[0] * small.shape[1]]
    return (small, max(blobs, key=lambda blob: blob.area).on(small.shape)) if blobs else None


def parts_of(product: str, draw: int, data: Path) -> tuple[Iterator[Part], Iterator[Part], tuple[int, int, int]]:
    """Good parts and defective ones, none twice, and the color of the ground."""
    rng = np.random.default_rng([87, draw])
    if product in REAL:
        folder = data / product
        good = sorted((folder / "train" / "good").iterdir()) + sorted((folder / "test" / "good").iterdir())
        bad = sorted(path for path in (folder / "test").glob("*/*") if path.parent.name != "good")
        both = [[paths[at] for at in rng.permutation(len(paths))] for paths in (good, bad)]
        # Few photographs go round more than once, after all others.
        read = [(part for path in paths * 8 if (part := cut(read_image(path))) is not None) for paths in both]
        return read[0], read[1], REAL[product]

    def rendered(seed: int) -> np.ndarray:
        return render(product, seed, 2 * PART_SIDE, variant=GENERATED[product], placement="fixed")

    def good_parts() -> Iterator[Part]:
        for seed in range(1000 * draw, 1000 * draw + 999):
            if (part := cut(rendered(seed))) is not None:
                yield part

    def bad_parts() -> Iterator[Part]:
        for seed in range(1000 * draw + 500_000, 1000 * draw + 500_999):
            if (part := cut(rendered(seed))) is not None:
                kind = ("spot", "scratch", "patch")[seed % 3]
                yield DrawnDefect(0, kind, DRAWN, seed).draw(part[0], cv2.erode(part[1], np.ones((9, 9)))), part[1]

    first = next(good_parts())
    ground = np.median(first[0][cv2.dilate(first[1], np.ones((7, 7))) == 0], axis=0)
    return good_parts(), bad_parts(), (int(ground[0]), int(ground[1]), int(ground[2]))


def tray(
    parts: Sequence[Part], ground: tuple[int, int, int], rng: np.random.Generator, touching: bool = False
) -> np.ndarray:
    """Parts laid on an even ground, each turned at random, (H, W, 3) uint8 RGB."""
    height, width = TRAY_HW
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = 1 - 0.05 * x - 0.04 * y - 0.03 * (x * x + y * y)
    out = np.array(ground, np.float32) * light[..., None] + rng.normal(0, 1.5, (height, width, 1))
    right, middle_row = 0, 0.0
    for at, (picture, mask) in enumerate(parts):
        row, column = divmod(at, COLUMNS)
        place = np.array([(column + 0.5) * width / COLUMNS, (row + 0.5) * height / ROWS]) + rng.uniform(-25, 25, 2)
        rows, columns = np.nonzero(mask)
        middle = (float(columns.mean()), float(rows.mean()))
        turned = cv2.getRotationMatrix2D(middle, float(rng.uniform(0, 360)), 1.0)
        if touching and at == 1:
            # Where its leftmost pixel meets the rightmost one of the part before.
            own = turned @ [columns, rows, np.ones(len(rows))]
            place = np.array([right - 1 + middle[0] - own[0].min(), middle_row])
        turned[:, 2] += place - middle
        alpha = cv2.warpAffine(cv2.erode(mask, np.ones((3, 3))), turned, (width, height))
        soft = cv2.GaussianBlur(alpha.astype(np.float32) / 255, (0, 0), 0.8)[..., None]
        out += (cv2.warpAffine(picture, turned, (width, height), borderMode=cv2.BORDER_REPLICATE) - out) * soft
        right, middle_row = int(np.nonzero(alpha)[1].max()), float(place[1])
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def with_thing(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tray with a small thing of another color in its middle, where no part lies."""
    radius, center = int(rng.integers(14, 20)), (TRAY_HW[1] // 3, TRAY_HW[0] // 2)
    return cv2.circle(image.copy(), center, radius, [int(v) for v in rng.integers(30, 120, 3)], -1, cv2.LINE_AA)


def measured(product: str, draw: int, data: Path) -> dict[str, Any]:
    """One product, one draw: what is said of each tray."""
    rng = np.random.default_rng([88, draw])
    good, bad, ground = parts_of(product, draw, data)

    def take(count: int) -> list[Part]:
        return [next(good) for _ in range(count)]

    support = [tray(take(PARTS), ground, rng) for _ in range(SHOTS)]
    trays: dict[str, list[np.ndarray]] = {"good": [tray(take(PARTS), ground, rng) for _ in range(GOOD)]}
    places = [int(rng.integers(PARTS)) for _ in range(DEFECTIVE)]
    trays["defective"] = []
    for place in places:
        parts = take(PARTS)
        parts[place] = next(bad)
        trays["defective"].append(tray(parts, ground, rng))
    trays["missing"] = [tray(take(PARTS - 1), ground, rng) for _ in range(MISSING)]
    trays["foreign"] = [with_thing(tray(take(PARTS), ground, rng), rng) for _ in range(FOREIGN)]
    trays["touching"] = [tray(take(PARTS), ground, rng, touching=True) for _ in range(TOUCHING)]
    row: dict[str, Any] = {"places": places}
    for name, settings in (("parts", {"parts": "auto", "expect": PARTS}), ("whole", {})):
        inspector = Inspector.from_support(support, product=product, **settings)
        row[name] = {kind: [said(inspector, image) for image in images] for kind, images in trays.items()}
        row[name]["support"] = len(inspector.enrollment.support)
    return row | {"patchcore": patchcore(support, trays)}


def said(inspector: Inspector, image: np.ndarray) -> dict[str, Any]:
    """The verdict on a tray."""
    inspection = inspector.inspect(image)
    return {
        "verdict": inspection.verdict,
        "severity": round(inspection.severity, 4),
        "finding": "" if inspection.count is None else inspection.count.finding,
        "parts": [[part.verdict, round(part.severity, 4)] for part in inspection.parts],
        "ms": round(inspection.timings_ms["total"], 1),
    }


def patchcore(support: Sequence[np.ndarray], trays: dict[str, list[np.ndarray]]) -> dict[str, list[float]]:
    """Scores of good and defective trays by PatchCore, at 512 x 512."""
    from fewshot_ad.zoo import create

    method = create("patchcore", image_size=512)
    method.fit(support)
    return {kind: [float(score) for score in method.predict(trays[kind]).scores] for kind in ("good", "defective")}


def _area(good: Sequence[float], bad: Sequence[float]) -> float:
    return 100 * auroc([0] * len(good) + [1] * len(bad), [*good, *bad])


def figures(row: dict[str, Any]) -> dict[str, float]:
    """The figures of one product and draw, in percent."""
    parts, whole = row["parts"], row["whole"]
    single = [part for one in parts["good"] for part in one["parts"]]
    bad = [
        one["parts"][place]
        for one, place in zip(parts["defective"], row["places"], strict=True)
        if len(one["parts"]) == PARTS
    ]

    def share(rows: Sequence[dict[str, Any]], test: Callable[[dict[str, Any]], bool]) -> float:
        return 100 * float(np.mean([test(one) for one in rows]))

    return {
        "part auroc": _area([severity for _, severity in single], [severity for _, severity in bad]),
        "part rejects": 100 * float(np.mean([verdict != "good" for verdict, _ in single])),
        "part escapes": 100 * float(np.mean([verdict == "good" for verdict, _ in bad])),
        "tray auroc": _area(*([one["severity"] for one in parts[kind]] for kind in ("good", "defective"))),
        "whole auroc": _area(*([one["severity"] for one in whole[kind]] for kind in ("good", "defective"))),
        "patchcore auroc": _area(row["patchcore"]["good"], row["patchcore"]["defective"]),
        "tray rejects": share(parts["good"], lambda one: one["verdict"] != "good"),
        "whole rejects": share(whole["good"], lambda one: one["verdict"] != "good"),
        "tray escapes": share(parts["defective"], lambda one: one["verdict"] == "good"),
        "whole escapes": share(whole["defective"], lambda one: one["verdict"] == "good"),
        "missing told": share(parts["missing"], lambda one: "missing" in one["finding"]),
        "missing rejected whole": share(whole["missing"], lambda one: one["verdict"] != "good"),
        "foreign told": share(parts["foreign"], lambda one: "besides" in one["finding"]),
        "touching parted": share(parts["touching"], lambda one: len(one["parts"]) == PARTS and not one["finding"]),
        "touching passed as good": share(
            parts["touching"], lambda one: one["verdict"] == "good" and len(one["parts"]) != PARTS
        ),
    }


COLUMNS_SHOWN = (
    ("part rejects", "good parts rejected"),
    ("part escapes", "defective parts passed"),
    ("part auroc", "part AUROC"),
    ("tray auroc", "tray AUROC"),
    ("whole auroc", "tray AUROC, as a whole"),
    ("patchcore auroc", "tray AUROC, PatchCore"),
    ("whole rejects", "good trays rejected, as a whole"),
    ("whole escapes", "defective trays passed, as a whole"),
    ("missing told", "missing part told"),
    ("foreign told", "other thing told"),
    ("touching parted", "touching parts told apart"),
)


def report(rows: Sequence[dict[str, Any]]) -> str:
    """One line per product, mean and spread over the draws, and the mean of the products."""
    lines, means = [], []
    for product in dict.fromkeys(row["product"] for row in rows):
        found = [figures(row) for row in rows if row["product"] == product]
        columns = [[one[name] for one in found] for name, _ in COLUMNS_SHOWN]
        means.append([float(np.mean(values)) for values in columns])
        lines.append([product, *map(_shown, columns)])
    if means:
        lines.append(["mean", *(f"{value:.1f}" for value in np.mean(means, axis=0))])
    return table(["product", *(name for _, name in COLUMNS_SHOWN)], lines)


def _shown(values: Sequence[float]) -> str:
    if not values:
        return NONE
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
