"""What each loss of Siamese training brings: SimSiam, margin and anchor, each on and off, on the shared board.

A ResNet18 whose backbone is trained along, from the weights that ship (their backbone; E starts anew), on pairs of
generated parts, by the recipe `siamese`, cut short. Every run has the same steps, rate and data; only the losses, E,
what is trained or the transformers change. None of the products of the board was trained on. Each encoder is then a
method of the board with views and scale held fixed.

    python benchmarks/objective.py             # resumable; about an hour on two cores
    python benchmarks/objective.py --report    # the table of what is recorded
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import yaml
from own_encoder import own_encoder

from fewshot_ad.benchmark import record, tables
from fewshot_ad.benchmark.plan import Plan
from fewshot_ad.benchmark.plan_file import parse_plan
from fewshot_ad.benchmark.run import processes, run_plan
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.run import read_recipe

HERE = Path(__file__).parent
SHIPPED = HERE.parent / "fewshot_ad" / "training" / "recipes" / "siamese.yaml"
# A third of the steps, smaller images, and no transformers unless a run asks for them.
RECIPE = dataclasses.replace(
    read_recipe(SHIPPED, TrainingRecipe),
    registration=None,
    equivariance=0.0,
    size=128,
    epochs=3,
    generated=4,
)
PUBLISHED_E: dict[str, Any] = {"layers": 3, "residual": False, "embed": "last", "keep": 0.0}
ALL: dict[str, Any] = {"simsiam": 1.0, "margin": 1.0, "anchor": 0.05}
RUNS: dict[str, dict[str, Any]] = {
    "SimSiam": {"simsiam": 1.0},
    "margin": {"margin": 1.0},
    "SimSiam and margin": {"simsiam": 1.0, "margin": 1.0},
    "SimSiam and anchor": {"simsiam": 1.0, "anchor": 0.05},
    "margin and anchor": {"margin": 1.0, "anchor": 0.05},
    "all three": ALL,
    "all three, backbone frozen": ALL | {"freeze": True, "freeze_statistics": False, "backbone_rate": None},
    "all three, statistics not kept": ALL | {"freeze_statistics": False},
    "all three, E of three layers on the last stage": ALL | PUBLISHED_E,
    "all three, pairs in one pose": ALL | {"register": True},
    "all three, transformers by known warps": ALL | {"registration": "rotation+scale", "equivariance": 1.0},
}
# What else than E a bank can store: the stages of strides 8 and 16, which are number 2 and 3, and E, which is 4.
BANKS = {"the bank stores the stages": [2, 3], "the bank stores the stages and E": [2, 3, 4]}
BOARD = {"image_size": 256, "views": "hflip,vflip,rotate=180", "budget": 2000}


def trained(name: str, folder: Path) -> Path | None:
    """The card of an encoder that was trained with some losses; None if training stopped."""
    recipe = dataclasses.replace(RECIPE, **{"simsiam": 0.0, "margin": 0.0, "anchor": 0.0, **RUNS[name]})
    run = folder / name.replace(" ", "_").replace(",", "")
    try:
        return own_encoder(recipe, run, "resnet18_parts (Apache-2.0)", "Apache-2.0")
    except TrainingError as error:
        print(f"{name}: {error}", flush=True)
        return None


def plan(cards: dict[str, Path]) -> Plan:
    """The plan of the encoder board with these encoders, at four images."""
    methods: dict[str, Any] = {
        "initialization": {
            "baseline": "fewshot_ad",
            "options": {"encoder": "resnet18_parts", "stages": [2, 3], **BOARD},
        }
    }
    for name, card in cards.items():
        options = {"encoder": str(card.resolve()), **BOARD}
        methods[name] = {"baseline": "fewshot_ad", "options": options}
        if name == "all three":
            for what, stages in BANKS.items():
                methods[f"{name}, {what}"] = {"baseline": "fewshot_ad", "options": {**options, "stages": stages}}
    board = yaml.safe_load((HERE / "encoder_board.yaml").read_text())
    return parse_plan(board | {"name": "Losses of Siamese training", "shots": [4], "methods": methods}, HERE)


def main() -> None:
    """Train, inspect, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "out" / "objective.jsonl", help="record file, added to")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--report", action="store_true", help="print the table of what is recorded, compute nothing")
    args = parser.parse_args()
    if not args.report:
        folder = args.out.parent / "objective"
        cards = {name: card for name in args.runs if (card := trained(name, folder)) is not None}
        for state in run_plan(plan(cards), args.out, processes(1)):
            print(f"{state.jobs}/{state.total} jobs, {state.failures} failed: {state.last or 'start'}", flush=True)
    print(tables.markdown(record.read(args.out)))


if __name__ == "__main__":
    main()
