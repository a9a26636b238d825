"""Do the spatial transformers register? Each mode trained briefly by SimSiam, and how far it follows the part.

An image is turned by 15 degrees, enlarged by 1.15 or moved by a tenth of half its side. If the transformers
register, the image and its changed copy end in the same pose: `left` is how much of the change is left then, as a
share of it (0: registered, 1: not followed at all). `moved` is how far they move an unchanged image (in half
images): 0 is the identity they start from. On generated products that were not trained on. `spread` is the
collapse monitor of the last epoch, `simsiam` its loss (-1 is perfect agreement).

The cards (.json) that this leaves in the output folder can be named as `encoder` of a method in a benchmark plan.

    python benchmarks/registration.py
    python benchmarks/registration.py --record    # and put the figures on record
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import measured_tables
import measurements
import numpy as np
import torch

from fewshot_ad.cli.terminal import progress_bar
from fewshot_ad.encoder.registration import PARTS, compose, invert, warp
from fewshot_ad.encoder.siamese import SiameseEncoder
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.parts import CATEGORIES, render
from fewshot_ad.training.publish import publish
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.siamese import train

HERE = Path(__file__).parent
RECIPE = TrainingRecipe(
    backbone="tf_efficientnet_lite0",
    init="bundled",
    freeze=True,
    size=128,
    epochs=3,
    optimizer="adamw",
    learning_rate=1e-3,
    generated=4,
)
VARIANT = 80_000
COS, SIN = float(np.cos(np.radians(15))), float(np.sin(np.radians(15)))
CHANGES = {
    "rotation": [[COS, -SIN, 0], [SIN, COS, 0]],
    "scale": [[1 / 1.15, 0, 0], [0, 1 / 1.15, 0]],
    "translation": [[1, 0, 0.1], [0, 1, 0]],
}


def what_is_left(encoder: SiameseEncoder, size: int) -> dict[str, float]:
    """What is left of each change, and how far an unchanged image is moved."""
    parts = np.stack([render(name, 0, size, variant=VARIANT) for name in CATEGORIES])
    images = torch.from_numpy(parts).permute(0, 3, 1, 2).float() / 255
    line = torch.linspace(-0.8, 0.8, 9)
    grid = torch.stack([*torch.meshgrid(line, line, indexing="xy"), torch.ones(9, 9)]).reshape(3, -1)
    encoder.eval()
    with torch.inference_mode():
        pose = encoder.registered(images)[1][-1]
        moved = pose @ grid
        result = {"moved": float((moved - grid[:2]).norm(dim=1).mean())}
        for name, rows in CHANGES.items():
            change = torch.tensor(rows).expand(len(images), 2, 3)
            changed = encoder.registered(warp(images, change))[1][-1]
            # The changed copy shows at p what the image shows at change(p).
            expected = compose(invert(change), pose) @ grid
            result[name] = float((changed @ grid - expected).norm(dim=1).mean() / (moved - expected).norm(dim=1).mean())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "out" / "registration")
    parser.add_argument("--modes", nargs="*", default=list(PARTS))
    parser.add_argument("--set", type=json.loads, default={}, help="JSON with other fields of the recipe")
    parser.add_argument("--name", default="", help="put before the names, for another recipe")
    measurements.add_record_option(parser)
    args = parser.parse_args()
    rows = []
    for mode in args.modes:
        recipe: Any = dataclasses.replace(RECIPE, registration=mode, **args.set)
        name = args.name + mode.replace("+", "_")
        folder = args.out / name
        try:
            with progress_bar(False) as progress:
                trained = train(recipe, folder, device="cpu", progress=progress)
        except TrainingError as error:
            print(f"{name} left out: {error}")
            continue
        if trained is None:
            continue  # another process of torchrun
        figures = what_is_left(trained.encoder, recipe.size)
        last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
        publish(
            trained.encoder,
            folder,
            name,
            recipe=recipe,
            data=trained.data,
            initialization=recipe.init,
            license="unknown",
            source="benchmarks/registration.py",
            replace=True,
        )
        rows.append({"mode": name, **figures, "simsiam": last.get("simsiam"), "spread": last["spread"]})
    measured_tables.finish("registration", rows, args.record)


if __name__ == "__main__":
    main()
