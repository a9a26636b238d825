"""Registration of the whole image before inspection: does a canonical pose help parts that lie at any angle?

Five ways with the shipped default at 256 pixels, on the same support draws: flips alone, flips and rotated support
views, the one of these that `auto` chooses, and flips after registration by the pixels or by the encoder's own
features: each image is brought into the pose of the first support image, inspected there, and the anomaly map
is mapped back. Products: the board's parts that are placed by hand, and generated parts at any angle with drawn defects
(other products than the encoder was trained on).

    python benchmarks/alignment.py
    python benchmarks/alignment.py --report    # the tables of what is on record
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from boards import HERE

from fewshot_ad import Inspector
from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.benchmark import record, tables
from fewshot_ad.benchmark.plan import Plan
from fewshot_ad.benchmark.plan_file import parse_plan
from fewshot_ad.benchmark.run import in_process, run_plan
from fewshot_ad.encoder import load_encoder
from fewshot_ad.enrollment.pose import FeatureUnroller, pose, unroll_pixels
from fewshot_ad.training.pairs import draw_defects
from fewshot_ad.training.parts import render
from fewshot_ad.zoo import Card, Labeled, Method, Predictions
from fewshot_ad.zoo.method import baseline

FLIPS = "hflip,vflip,rotate=180"
ROTATIONS = FLIPS + ",rotate=45/90/135/225/270/315"
REAL = ["cookie", "alien_toy"]
GENERATED = ["screw", "hex_nut", "gear", "key", "washer", "connector"]
VARIANT, SUPPORT, GOOD, BAD = 90_000, 24, 20, 20


class Aligner:
    """Brings images into the pose of a reference image, by its pixels or by an encoder's features."""

    def __init__(self, reference: Uint8Array, encoder: Any = None) -> None:
        features = None if encoder is None else FeatureUnroller(encoder, reference)
        self._unroll = features or unroll_pixels
        self._reference = features.reference if features else unroll_pixels(reference)

    def align(self, image: Uint8Array) -> tuple[Uint8Array, Any]:
        """The image in the reference's pose, and the affine matrix (2, 3) that brought it there."""
        here, there = self._unroll(image), self._reference
        height, width = image.shape[:2]
        x, y = here.x * width - 0.5, here.y * height - 0.5
        matrix = cv2.getRotationMatrix2D((x, y), pose(here, there).angle, 1.0)
        matrix[:, 2] += ((there.x - here.x) * width, (there.y - here.y) * height)
        return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), matrix


class Registered:
    """See `registered_fewshot_ad` for the arguments."""

    def __init__(self, by: str, seed: int) -> None:
        self._by, self._seed = by, seed
        self._encoder = load_encoder()

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Enroll the images in the pose of the first one."""
        self._aligner = Aligner(normal[0], self._encoder if self._by == "features" else None)
        support = [self._aligner.align(image)[0] for image in normal]
        self._inspector = Inspector.from_support(
            support, encoder=self._encoder, image_size=256, views=FLIPS, seed=self._seed, progress=progress
        )

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Inspect each image in that pose and map its anomaly map back."""
        scores, maps, rejected = [], [], []
        for image in images:
            aligned, matrix = self._aligner.align(image)
            result = self._inspector.inspect(aligned)
            scores.append(result.score)
            rejected.append(result.is_anomalous)
            maps.append(self._back(result.anomaly_map, matrix))
        return Predictions(np.array(scores, np.float32), tuple(maps), np.array(rejected, bool))

    @staticmethod
    def _back(score_map: Float32Array, matrix: Any) -> Float32Array:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(score_map, matrix, score_map.shape[1::-1], flags=flags)

    def model_bytes(self) -> int:
        """The memory banks; the encoder is that of `fewshot_ad`."""
        return sum(bank.vectors.size * bank.stored_dtype.itemsize for bank in self._inspector.banks)


@baseline(
    Card(
        name="registered_fewshot_ad",
        title="fewshot-ad after registration of the whole image",
        paper="fewshot-ad 2026, this package",
        year=2026,
        family="registration",
        supervision="good images",
        source="fewshot_ad",
        license="Apache-2.0",
        maps=True,
        needs_masks=False,
        needs_internet=False,
        trains=False,
        weights="The default encoder.",
    )
)
def registered_fewshot_ad(*, seed: int = 0, by: Literal["pixels", "features"] = "pixels") -> Method:
    """The Inspector on images in the pose of the first support image; `by` says what the pose is estimated from."""
    return Registered(by, seed)


def generate(root: Path) -> None:
    """Write products at any angle in MVTec layout; images that are there stay."""
    for category in GENERATED:
        for number in range(SUPPORT + GOOD + BAD):
            split = "train/good" if number < SUPPORT else "test/good" if number < SUPPORT + GOOD else "test/drawn"
            path = root / category / split / f"{number:03d}.png"
            if path.exists():
                continue
            image: Uint8Array = render(category, number, 320, variant=VARIANT, placement="free")
            if split == "test/drawn":
                image, mask = defective(image, number)
                truth = root / category / "ground_truth" / "drawn" / f"{number:03d}_mask.png"
                truth.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(truth), mask.astype(np.uint8) * 255)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image[..., ::-1])


def defective(good: Uint8Array, number: int) -> tuple[Uint8Array, np.ndarray[Any, Any]]:
    """The image with defects drawn on it, and their mask, (H, W) bool."""
    rng, mask, image = np.random.default_rng([VARIANT, number]), np.zeros(1, bool), good
    while not mask.any():  # ground copied onto ground is no defect
        image, mask = draw_defects(good, rng)
    return image, mask


def plan(data: Path, generated: Path) -> Plan:
    """Five ways, K = 4, three draws."""
    ways = {"flips": FLIPS, "flips + rotations": ROTATIONS, "auto": "auto"}
    methods: dict[str, Any] = {
        way: {"baseline": "fewshot_ad", "options": {"image_size": 256, "views": views}} for way, views in ways.items()
    }
    for by in ("pixels", "features"):
        methods[f"registered ({by})"] = {"baseline": "registered_fewshot_ad", "options": {"by": by}}
    return parts_plan("Parts at any angle", methods, REAL, data, generated)


def parts_plan(name: str, methods: dict[str, Any], real: list[str], data: Path, generated: Path) -> Plan:
    """Some methods on real and generated parts, K = 4, three draws: those of the boards where they list the product.

    The list goes for the generated parts too, which it does not name, since MVTec AD's own list has a `screw`.
    """
    board = {"layout": "mvtec", "support": "board_support.txt"}
    return parse_plan(
        {
            "name": name,
            "methods": methods,
            "datasets": {
                "real parts": {**board, "root": str(data), "categories": real},
                "generated parts": {**board, "root": str(generated), "categories": GENERATED},
            },
            "shots": [4],
            "protocol": {"test_limit": 60, "pixel_side": 256, "bootstrap": 0, "overlays": 0},
        },
        HERE,
    )


def main() -> None:
    """Run or report."""
    run_script(__doc__, "alignment", plan)


def run_script(description: str | None, name: str, make_plan: Callable[[Path, Path], Plan]) -> None:
    """The command line of a script whose plan is of real and generated parts."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "out" / f"{name}.jsonl", help="record file, added to")
    parser.add_argument("--report", action="store_true", help="print the tables of what is recorded, compute nothing")
    args = parser.parse_args()
    if not args.report:
        parts = args.out.parent / "parts_at_any_angle"
        generate(parts)
        # In this process, which alone knows the methods of these scripts.
        for state in run_plan(make_plan(args.data.resolve(), parts.resolve()), args.out, in_process):
            print(f"{state.jobs}/{state.total} jobs, {state.failures} failed: {state.last or 'start'}", flush=True)
    print(tables.markdown(record.read(args.out), ("image_auroc", "pixel_auroc", "au_pro", "ms")))


if __name__ == "__main__":
    main()
