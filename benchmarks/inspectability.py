"""Which images get no verdict: none of a real part should, and every one of something else, or of no use.

Each product is enrolled from K good images and inspects all its test images, one image of each other product, and
good images that were spoiled. Outcomes are kept in the file `--work`, and a run that was broken off goes on from there.

    python benchmarks/inspectability.py --data ../shared/data --work /tmp/inspectability.jsonl
    python benchmarks/inspectability.py --data ../shared/data --work /tmp/inspectability.jsonl --shots 2
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import hygiene
import numpy as np

from fewshot_ad import Inspector, load_encoder, read_image
from fewshot_ad.arrays import Uint8Array
from fewshot_ad.images import list_images

SPOILED_FROM = 5


def _side(image: Uint8Array) -> float:
    return float((image.shape[0] * image.shape[1]) ** 0.5)


SPOILED: dict[str, Callable[[Uint8Array], Uint8Array]] = {
    "black": lambda image: np.full_like(image, 2),
    "white": lambda image: np.full_like(image, 252),
    "a sixth of the light": lambda image: image // 6,
    "three times the light": lambda image: cv2.convertScaleAbs(image, alpha=3),
    "blurred by 2% of the side": lambda image: cv2.GaussianBlur(image, (0, 0), 0.02 * _side(image)),
    "BGR for RGB": lambda image: np.ascontiguousarray(image[..., ::-1]),
}


def outcome(
    data: Path, product: str, draw: int, shots: int, inspector_of: Callable[[Sequence[Path]], Inspector]
) -> dict[str, Any]:
    """Numbers of images without a verdict, as [without, all] by kind of image."""
    folder = data / product
    rng = np.random.default_rng([draw, shots, 1])
    train = list_images(folder / "train" / "good")
    inspector = inspector_of([train[i] for i in rng.permutation(len(train))[:shots]])
    good = list_images(folder / "test" / "good")
    some = [good[i] for i in rng.permutation(len(good))[:SPOILED_FROM]]
    others = [list_images(data / other / "train" / "good") for other in hygiene.PRODUCTS if other != product]

    def count(images: Iterable[Path | Uint8Array]) -> list[int]:
        missing = [inspector.inspect(image).verdict == "not_inspectable" for image in images]
        return [sum(missing), len(missing)]

    return {
        "good": count(good),
        "defective": count(hygiene.defective_images(folder)),
        "another product": count(images[rng.integers(len(images))] for images in others),
        **{
            name: count(spoil(read_image(image)) for image in some)
            for name, spoil in SPOILED.items()
            if _applies(name, some)
        },
    }


def _applies(name: str, images: Sequence[Path]) -> bool:
    """Whether an image changes at all: gray ones have no channels to swap."""
    return any(not np.array_equal(read_image(image), SPOILED[name](read_image(image))) for image in images)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown: images without a verdict, of how many."""
    kinds = ["good", "defective", "another product", *SPOILED]
    lines = [f"| product | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    products = list(dict.fromkeys(row["product"] for row in rows))
    for product in [*products, "all"]:
        of = [row for row in rows if product in (row["product"], "all")]
        sums = [np.sum([row[kind] for row in of if kind in row], axis=0) for kind in kinds]
        cells = [f"{int(s[0])} of {int(s[1])}" if np.ndim(s) else "" for s in sums]
        lines.append(f"| {product} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of products in MVTec layout")
    parser.add_argument("--work", type=Path, required=True, help="file of the outcomes, one JSON object a line")
    parser.add_argument("--products", nargs="+", default=hygiene.PRODUCTS)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=256, help="in pixels")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    encoder = load_encoder(threads=args.threads)

    def inspector_of(support: Sequence[Path]) -> Inspector:
        views = "hflip,vflip,rotate=180"
        return Inspector.from_support(support, encoder=encoder, image_size=args.image_size, views=views)

    rows = [json.loads(line) for line in args.work.read_text().splitlines()] if args.work.exists() else []
    setting = f"{args.shots} {args.image_size}"
    with args.work.open("a") as file:
        for draw in range(args.draws):
            for product in args.products:
                key = f"{product} {draw} {setting}"
                if key in {row["key"] for row in rows}:
                    continue
                rows.append(
                    {"key": key, "product": product, **outcome(args.data, product, draw, args.shots, inspector_of)}
                )
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
    print(table([row for row in rows if row["key"].endswith(setting)]))


if __name__ == "__main__":
    main()
