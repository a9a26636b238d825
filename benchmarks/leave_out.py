"""Transfer: each product judged by an encoder that was trained on the others, never on itself.

For each category of the board an encoder is trained with `leave_out` on the good images of all other products of the
folder and on generated parts, by the recipe of the default encoder; then the category is enrolled and inspected with
it, beside the encoder that ships, which saw generated parts only, and the one it was trained from.

    python benchmarks/leave_out.py             # resumable; trains one encoder per category
    python benchmarks/leave_out.py --report    # the table of what is recorded
    python benchmarks/leave_out.py --data MVTEC --categories bottle cable   # a folder in the layout of MVTec AD

The same by hand:

    fewshot-ad train DATA parts -o out/bottle --recipe parts --leave-out bottle --license research-only
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
from fewshot_ad.datasets import open_dataset
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.run import read_recipe

HERE = Path(__file__).parent
ROOT = HERE.parent
DATA = ROOT.parent / "shared" / "data"
CATEGORIES = ("bottle", "magnetic_tile", "cookie", "elpv_mono", "alien_toy", "casting")
BOARD = {"image_size": 256, "views": "hflip,vflip,rotate=180", "budget": 2000}


def trained(category: str, data: Path, folder: Path, epochs: int | None) -> Path:
    """The card of the encoder that has not seen a category."""
    shipped = read_recipe(ROOT / "fewshot_ad" / "training" / "recipes" / "parts.yaml", TrainingRecipe)
    epochs = epochs or shipped.epochs
    recipe = dataclasses.replace(shipped, folders=(str(data), "parts"), leave_out=(category,), epochs=epochs)
    run = folder / f"{data.name}_{epochs}_epochs" / category
    return own_encoder(recipe, run, "EfficientNet-Lite0 (Apache-2.0)", "research-only")


def plan(category: str, data: Path, card: Path, shots: list[int]) -> Plan:
    """One category, by the encoder that has not seen it and by those that ship."""
    encoders = {
        "trained on the other products": str(card.resolve()),
        "lite0_parts": "lite0_parts",
        "efficientnet_lite0": "efficientnet_lite0",
    }
    methods: dict[str, Any] = {
        name: {"baseline": "fewshot_ad", "options": {"encoder": encoder, **BOARD}} for name, encoder in encoders.items()
    }
    board = yaml.safe_load((HERE / "encoder_board.yaml").read_text())
    dataset = {**board["datasets"]["board"], "root": str(data), "categories": [category]}
    if data != DATA.resolve():
        dataset.pop("support")
    changes = {"name": "Transfer", "shots": shots, "methods": methods, "datasets": {"board": dataset}}
    return parse_plan(board | changes, HERE)


def main() -> None:
    """Train, inspect, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder in the layout of MVTec AD")
    parser.add_argument("--categories", nargs="+", help="by default those of the board, or all of another folder")
    parser.add_argument("--shots", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--epochs", type=int, help="fewer or more than the recipe has")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "leave_out.jsonl", help="record file, added to")
    parser.add_argument("--report", action="store_true", help="print the table of what is recorded, compute nothing")
    args = parser.parse_args()
    data = args.data.resolve()
    categories = args.categories or (CATEGORIES if data == DATA.resolve() else open_dataset("mvtec", data).categories)
    for category in () if args.report else categories:
        card = trained(category, data, args.out.parent / "leave_out", args.epochs)
        for state in run_plan(plan(category, data, card, args.shots), args.out, processes(1)):
            print(f"{category}: {state.jobs}/{state.total} jobs, {state.failures} failed: {state.last or 'start'}")
    print(tables.markdown(record.read(args.out), tables.MAIN))


if __name__ == "__main__":
    main()
