"""Registration of the whole image before inspection: does a canonical pose help parts that lie at any angle?

Five ways with the shipped default at 256 pixels, on the same support draws: flips alone, flips and rotated support
views, the one of these that `auto` chooses, and flips after registration by the pixels or by the encoder's own
features: each image is brought into the pose of the first support image, inspected there, and the anomaly map
is mapped back. Products: the board's parts that are placed by hand, and generated parts at any angle with drawn defects
(other products than the encoder was trained on).

    python benchmarks/alignment.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from shared_board import HERE, LISTS, Predict, evaluate, read_records

from fewshot_ad import Inspector
from fewshot_ad.arrays import Uint8Array
from fewshot_ad.encoder import load_encoder
from fewshot_ad.enrollment.pose import FeatureUnroller, pose, unroll_pixels
from fewshot_ad.images import read_image
from fewshot_ad.training.pairs import draw_defects
from fewshot_ad.training.parts import render

FLIPS = "hflip,vflip,rotate=180"
ROTATIONS = FLIPS + ",rotate=45/90/135/225/270/315"
WAYS = ("flips", "flips + rotations", "auto", "registered (pixels)", "registered (features)")
REAL = ("cookie", "alien_toy")
GENERATED = ("screw", "hex_nut", "gear", "key", "washer", "connector")
VARIANT, SUPPORT, GOOD, BAD = 90_000, 24, 20, 20


def generate(folder: Path) -> dict[str, Any]:
    """Products at any angle in MVTec layout; returns their support and test lists."""
    lists = {}
    for category in GENERATED:
        names = []
        for n in range(SUPPORT + GOOD + BAD):
            image: Uint8Array = render(category, n, 320, variant=VARIANT, placement="free")
            if n < SUPPORT:
                path = folder / category / "train" / "good" / f"{n:03d}.png"
            elif n < SUPPORT + GOOD:
                path = folder / category / "test" / "good" / f"{n:03d}.png"
            else:
                rng, mask = np.random.default_rng([VARIANT, n]), np.zeros(1, bool)
                good = image
                while not mask.any():  # ground copied onto ground is no defect
                    image, mask = draw_defects(good, rng)
                path = folder / category / "test" / "drawn" / f"{n:03d}.png"
                truth = folder / category / "ground_truth" / "drawn" / f"{n:03d}_mask.png"
                truth.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(truth), mask.astype(np.uint8) * 255)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image[..., ::-1])
            if n >= SUPPORT:
                names.append(str(path.relative_to(folder / category / "test")))
        draws = [np.random.default_rng(100 + d).permutation(SUPPORT)[:8] for d in range(3)]
        lists[category] = {"support": [[f"{i:03d}.png" for i in draw] for draw in draws], "test": names}
    return lists


class Aligner:
    """Brings images into the pose of a reference image, by its pixels or by an encoder's features."""

    def __init__(self, reference: Uint8Array, encoder: Any = None) -> None:
        features = None if encoder is None else FeatureUnroller(encoder, reference)
        self._unroll = features or unroll_pixels
        self._reference = features.reference if features else unroll_pixels(reference)

    def aligned(self, image: Uint8Array) -> tuple[Uint8Array, Any]:
        """The image in the reference's pose, and the affine matrix (2, 3) that brought it there."""
        here, there = self._unroll(image), self._reference
        height, width = image.shape[:2]
        x, y = here.x * width - 0.5, here.y * height - 0.5
        matrix = cv2.getRotationMatrix2D((x, y), pose(here, there).angle, 1.0)
        matrix[:, 2] += ((there.x - here.x) * width, (there.y - here.y) * height)
        return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), matrix


def fit(support: list[Path], way: str, encoder: Any) -> tuple[Predict, dict[str, Any]]:
    """Enroll in one of the ways."""
    images = [read_image(path) for path in support]
    aligner = None
    if way.startswith("registered"):
        aligner = Aligner(images[0], None if "pixels" in way else encoder)
        images = [aligner.aligned(p)[0] for p in images]
    views = "auto" if way == "auto" else ROTATIONS if "rotations" in way else FLIPS
    inspector = Inspector.from_support(images, encoder=encoder, image_size=256, views=views)

    def predict(path: Path) -> tuple[float, bool | None, Any]:
        image = read_image(path)
        if aligner is None:
            result = inspector.inspect(image)
            return result.score, result.is_anomalous, result.anomaly_map
        aligned, matrix = aligner.aligned(image)
        result = inspector.inspect(aligned)
        back = cv2.warpAffine(
            result.anomaly_map, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        return result.score, result.is_anomalous, back

    return predict, {"views": len(inspector.enrollment.settings.views)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "alignment.jsonl")
    parser.add_argument("--shots", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--report", action="store_true", help="print the table of what is recorded, compute nothing")
    args = parser.parse_args()
    if not args.report:
        run(args)
    groups: dict[tuple[int, str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in read_records(args.out):
        groups[record["shots"], record["product"], record["way"]].append(record)
    ways = [*WAYS, *sorted({key[2] for key in groups} - set(WAYS))]
    print("| K | product | " + " | ".join(ways) + " |\n|" + "---|" * (2 + len(ways)))
    for shots, product in sorted({key[:2] for key in groups}):
        cells = []
        for way in ways:
            group = groups.get((shots, product, way), [])
            cell = " ".join(
                f"{np.mean(v):.3f}" if figure == "image_auroc" else f"({np.mean(v):.3f})"
                for figure in ("image_auroc", "au_pro")
                if (v := [r[figure] for r in group if r.get(figure) is not None])
            )
            cells.append(cell)
        print(f"| {shots} | {product} | " + " | ".join(cells) + " |")


def run(args: argparse.Namespace) -> None:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = {(r["product"], r["shots"], r["draw"], r["way"]) for r in read_records(args.out)}
    encoder = load_encoder()
    with tempfile.TemporaryDirectory() as temporary:
        made = generate(Path(temporary))
        shared = json.loads(LISTS.read_text())
        products = [(args.data / p, shared[p]) for p in REAL if (args.data / p).is_dir()]
        products += [(Path(temporary) / p, made[p]) for p in GENERATED]
        for product, lists in products:
            for shots in args.shots:
                for draw in range(3):
                    for way in args.ways:
                        if (product.name, shots, draw, way) in done:
                            continue
                        figures = evaluate(product, lists, shots, draw, lambda support: fit(support, way, encoder))  # noqa: B023 - called at once
                        record = {"product": product.name, "shots": shots, "draw": draw, "way": way} | figures
                        with args.out.open("a") as file:
                            file.write(json.dumps(record) + "\n")
                        print(product.name, shots, draw, way, round(figures["image_auroc"], 3), figures.get("au_pro"))


if __name__ == "__main__":
    main()
