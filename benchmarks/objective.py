"""What each loss of Siamese training brings: SimSiam, margin and anchor, each on and off, on the shared board.

A ResNet18 whose backbone is trained along, from the weights that ship (their backbone; E starts anew), on pairs of
generated parts. Every run has the same steps, rate and data; only the losses, E or the transformers change. None of
the products of the board was trained on. Each encoder is then a method of the board with views and scale held fixed.

    python benchmarks/objective.py             # resumable; about an hour on two cores
    python benchmarks/objective.py --report    # the table of what is recorded
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml

from fewshot_ad.benchmark import record, tables
from fewshot_ad.benchmark.plan import Plan
from fewshot_ad.benchmark.plan_file import parse_plan
from fewshot_ad.benchmark.run import processes, run_plan
from fewshot_ad.cli.terminal import progress_bar
from fewshot_ad.encoder.weights import weights_folder
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.publish import publish
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.siamese import train

HERE = Path(__file__).parent
RECIPE = TrainingRecipe(
    backbone="resnet18",
    init=str(weights_folder() / "resnet18_parts.safetensors"),
    registration=None,
    embed="fused",
    layers=1,
    residual=True,
    size=96,
    batch=16,
    group=4,
    epochs=15,
    # The rate at which SimSiam falls without a collapse, see simsiam.py.
    learning_rate=0.01,
    generated=2,
    generated_images=8,
)
PUBLISHED_E: dict[str, Any] = {"layers": 3, "residual": False, "embed": "last"}
RUNS: dict[str, dict[str, Any]] = {
    "SimSiam": {"simsiam": 1.0},
    "margin": {"margin": 1.0},
    "SimSiam and margin": {"simsiam": 1.0, "margin": 1.0},
    "SimSiam and anchor": {"simsiam": 1.0, "anchor": 1.0},
    "margin and anchor": {"margin": 1.0, "anchor": 1.0},
    "all three": {"simsiam": 1.0, "margin": 1.0, "anchor": 1.0},
    "all three, E of three layers on the last stage": {"simsiam": 1.0, "margin": 1.0, "anchor": 1.0, **PUBLISHED_E},
    "all three, pairs in one pose": {"simsiam": 1.0, "margin": 1.0, "anchor": 1.0, "register": True},
    "all three, transformers by known warps": {
        "simsiam": 1.0,
        "margin": 1.0,
        "anchor": 1.0,
        "registration": "rotation+scale",
        "equivariance": 1.0,
    },
}
BOARD = {"image_size": 256, "views": "hflip,vflip,rotate=180", "budget": 2000}


def trained(name: str, folder: Path) -> Path | None:
    """The card of an encoder that was trained with some losses; None if training stopped."""
    folder = folder / name.replace(" ", "_").replace(",", "")
    card = folder / "encoder.json"
    if card.exists():
        return card
    recipe = dataclasses.replace(RECIPE, **{"simsiam": 0.0, **RUNS[name]})
    try:
        with progress_bar(False) as progress:
            result = train(recipe, folder, device="cpu", progress=progress)
    except TrainingError as error:
        print(f"{name}: {error}", flush=True)
        return None
    if result is None:
        return None  # another process of torchrun
    publish(
        result.encoder,
        folder,
        "encoder",
        recipe=recipe,
        data=result.data,
        initialization="resnet18_parts (Apache-2.0)",
        license="Apache-2.0",
        source="benchmarks/objective.py",
        replace=True,
    )
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    print(
        name,
        {key: last[key] for key in ("simsiam", "margin", "anchor", "equivariance", "spread", "content") if key in last},
    )
    return card


def plan(cards: dict[str, Path]) -> Plan:
    """The plan of the encoder board with these encoders, at four images."""
    methods: dict[str, Any] = {
        "initialization": {
            "baseline": "fewshot_ad",
            "options": {"encoder": "resnet18_parts", "stages": [2, 3], **BOARD},
        }
    }
    for name, card in cards.items():
        methods[name] = {"baseline": "fewshot_ad", "options": {"encoder": str(card.resolve()), **BOARD}}
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
