"""Other light than on the day of the enrollment: what `lighting` changes, on real photographs and generated parts.

Each product is enrolled from eight good images with each kind of `lighting`; then its test images are inspected as they
are, dimmed, brightened, under warmer and colder light. Generated parts are photographed again with the lamp moved about
them by 20 and 60 degrees, which no gain can undo; defects are drawn on half of them.

    python benchmarks/relighting.py                # resumable; with ../shared/data, or --data DIR
    python benchmarks/relighting.py --report       # the table of what is recorded
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measured_tables import NONE, table

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.enrollment.defects import random_defect
from fewshot_ad.images import read_image
from fewshot_ad.metrics import auroc
from fewshot_ad.product import LIGHTING_CHOICES
from fewshot_ad.product.relighting import relit
from fewshot_ad.training.parts import render, render_placed

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "shared" / "data"
OUT = HERE / "out" / "relighting.jsonl"
PRODUCTS = ("bottle", "casting", "cookie", "elpv_mono", "alien_toy", "magnetic_tile")
GENERATED = ("turned_disc", "toy_brick", "chip", "label")
SHOTS, DRAWS, TEST = 8, 3, 32
GAINS = {
    "as it was": (1.0, 1.0, 1.0),
    "dimmed to 75%": (0.75, 0.75, 0.75),
    "brightened to 120%": (1.2, 1.2, 1.2),
    "warmer": (1.08, 1.0, 0.88),
    "colder": (0.9, 1.0, 1.1),
}
TURNS = {"as it was": 0.0, "lamp moved by 20°": np.pi / 9, "lamp moved by 60°": np.pi / 3}
# Which of the generated products of a category; not those of training.
VARIANT = 900

Test = tuple[np.ndarray, bool]


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
    known = {(row["product"], row["draw"], row["lighting"]) for row in read_rows(args.out)}
    encoder = load_encoder()
    products = [(name, True) for name in GENERATED]
    products += [(name, False) for name in PRODUCTS if (args.data / name).is_dir()]
    for draw in range(args.draws):
        for name, generated in products:
            if all((name, draw, lighting) in known for lighting in LIGHTING_CHOICES):
                continue
            support, lights = generated_images(name, draw) if generated else real_images(args.data / name, draw)
            tests = list(lights())
            for lighting in LIGHTING_CHOICES:
                if (name, draw, lighting) in known:
                    continue
                inspector = Inspector.from_support(support, product=name, encoder=encoder, lighting=lighting)
                taken = inspector.model.lighting
                row = {"product": name, "generated": generated, "draw": draw, "lighting": lighting}
                row["taken"] = None if taken is None else taken.kind
                row["light"] = {light: judged(inspector, images) for light, images in tests}
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{name}: draw {draw}, {lighting}", flush=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The recorded figures."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def real_images(folder: Path, draw: int) -> tuple[list[np.ndarray], Any]:
    """Support images, and what gives the test images under each light."""
    train = sorted((folder / "train" / "good").iterdir())
    order = np.random.default_rng([37, draw]).permutation(len(train))
    support = [read_image(train[at]) for at in order[:SHOTS]]
    rng = np.random.default_rng([38, draw])
    test: list[Test] = []
    for bad in (False, True):
        paths = sorted(path for path in (folder / "test").glob("*/*") if (path.parent.name != "good") is bad)
        chosen = rng.permutation(len(paths))[: TEST // 2]
        test += [(read_image(paths[at]), bad) for at in chosen]

    def tests() -> Iterator[tuple[str, list[Test]]]:
        for light, gains in GAINS.items():
            yield light, [(image if light == "as it was" else relit(image, gains), bad) for image, bad in test]

    return support, tests


def generated_images(category: str, draw: int) -> tuple[list[np.ndarray], Any]:
    """The same of generated parts, whose lamp moves."""
    variant = VARIANT + draw
    support = [render(category, seed, 320, variant=variant) for seed in range(SHOTS)]

    def tests() -> Iterator[tuple[str, list[Test]]]:
        for light, turn in TURNS.items():
            images = [
                render_placed(category, 100 + seed, 320, variant=variant, lamp_turn=turn).image for seed in range(TEST)
            ]
            yield (
                light,
                [
                    (random_defect(image, np.random.default_rng([39, at])) if at % 2 else image, bool(at % 2))
                    for at, image in enumerate(images)
                ],
            )

    return support, tests


def judged(inspector: Inspector, images: Sequence[Test]) -> dict[str, float]:
    """Figures of one product under one light."""
    results = [(inspector.inspect(image), bad) for image, bad in images]
    truth = [bad for _, bad in results]
    return {
        "image_auroc": auroc(truth, [result.score for result, _ in results]),
        "false_rejects": float(np.mean([result.is_anomalous for result, bad in results if not bad])),
        "escapes": float(np.mean([not result.is_anomalous for result, bad in results if bad])),
        "not_inspectable": float(np.mean([result.verdict == "not_inspectable" for result, _ in results])),
    }


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Means over products of the means of their draws, and the worst product's false rejects."""
    lines = []
    for generated, lights in ((False, GAINS), (True, TURNS)):
        own = [row for row in rows if row["generated"] is generated]
        for light in lights:
            for lighting in LIGHTING_CHOICES:
                figures = {
                    name: {
                        product: float(np.mean([row["light"][light][name] for row in of]))
                        for product in sorted({row["product"] for row in own})
                        if (of := [r for r in own if r["product"] == product and r["lighting"] == lighting])
                    }
                    for name in ("image_auroc", "false_rejects", "escapes")
                }
                if not figures["image_auroc"]:
                    continue
                means = [f"{100 * float(np.mean(list(one.values()))):.1f}" for one in figures.values()]
                worst = max(figures["false_rejects"], key=lambda product: figures["false_rejects"][product])
                taken = [row["taken"] for row in own if row["lighting"] == lighting]
                share = f"{sum(one is not None for one in taken)} of {len(taken)}" if lighting == "auto" else NONE
                worst_rate = f"{100 * figures['false_rejects'][worst]:.0f} ({worst})"
                kind = "generated" if generated else "real"
                lines.append([kind, light, lighting, *means, worst_rate, share])
    head = ["products", "light", "`lighting`", "Image AUROC (%)", "false rejects (%)", "escapes (%)"]
    return table([*head, "worst product's false rejects (%)", "taken"], lines)


if __name__ == "__main__":
    main()
