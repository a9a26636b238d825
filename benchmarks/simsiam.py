"""At which rate does SimSiam learn? Both published backbones at learning rates over two decades and more.

Each starts from the weights that ship, with a new E of three layers and a predictor, as published: momentum SGD, one
cosine, pairs of generated parts, one of the two augmented. `loss` is the SimSiam loss (-1 is perfect agreement, 0 none)
over the first and the last epoch, `spread` the collapse monitor of the last (1: spread evenly, 0: collapsed).

    python benchmarks/simsiam.py             # resumable; hours on two cores
    python benchmarks/simsiam.py --report    # the table of the runs that are there
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from measured_tables import table

from fewshot_ad.cli.terminal import progress_bar
from fewshot_ad.encoder.weights import weights_folder
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.siamese import train

HERE = Path(__file__).parent
OUT = HERE / "out" / "simsiam.jsonl"
BACKBONES = {"resnet18": "resnet18_parts", "convnext_atto": "convnext_atto_parts"}
RATES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
# 544 images of 68 products: 34 steps per epoch.
SETTINGS: dict[str, Any] = {
    "size": 96,
    "batch": 16,
    "epochs": 30,
    "generated": 2,
    "generated_images": 8,
    "registration": None,
}


def run(backbone: str, rate: float, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training; its curves."""
    init = weights_folder() / f"{BACKBONES[backbone]}.safetensors"
    recipe = TrainingRecipe(backbone=backbone, init=str(init), learning_rate=rate, **settings)
    reason = ""
    try:
        with progress_bar(False) as progress:
            train(recipe, folder, device="cpu", progress=progress)
    except TrainingError as error:
        reason = str(error).split(":")[0]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {
        "backbone": backbone,
        "rate": rate,
        "settings": settings,
        "steps": lines[-1]["step"],
        "loss": [line["simsiam"] for line in lines],
        "spread": [line["spread"] for line in lines],
        "ended": reason,
    }


def report(rows: list[dict[str, Any]]) -> str:
    """One line per backbone and rate."""
    return table(
        ["backbone", "learning rate", "steps", "loss, first epoch", "loss, last epoch", "spread", "ended by"],
        (
            [
                row["backbone"],
                f"{row['rate']:g}",
                str(row["steps"]),
                f"{row['loss'][0]:.3f}",
                f"{row['loss'][-1]:.3f}",
                f"{row['spread'][-1]:.2f}",
                row["ended"] or "its end",
            ]
            for row in sorted(rows, key=lambda row: (row["backbone"], row["rate"]))
        ),
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The recorded runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Train or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="record file, added to")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--report", action="store_true", help="print the table of what is recorded, compute nothing")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if not args.report:
        done = {(row["backbone"], row["rate"]) for row in read_rows(args.out)}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for backbone in args.backbones:
            for rate in args.rates:
                if (backbone, rate) in done:
                    continue
                folder = args.out.parent / "simsiam" / f"{backbone}_{rate:g}"
                row = run(backbone, rate, folder, SETTINGS)
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                shutil.rmtree(folder)
                print(report([row]), flush=True)
    print(report(read_rows(args.out)))


if __name__ == "__main__":
    main()
