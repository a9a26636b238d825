"""At which rate does SimSiam learn? Both published backbones at learning rates over three decades.

Each starts from the weights that ship, with a new E of three layers and a predictor, as published: momentum SGD, one
cosine, pairs of generated parts, one of the two augmented. `loss` is the SimSiam loss (-1 is perfect agreement, 0 none)
over the first and the last epoch, `spread` the collapse monitor of the last (1: spread evenly, 0: collapsed), `content`
the share of the embedding's variance that tells images apart at one place (0: it tells the place alone). After the
rates, the other settings are varied one at a time at the rate of the lowest loss among runs that did not collapse.

    python benchmarks/simsiam.py             # resumable; hours on two cores
    python benchmarks/simsiam.py --report    # the table of the runs that are there
    python benchmarks/simsiam.py --report --out benchmarks/records/simsiam.jsonl --plot docs/results/plots
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from measured_tables import simsiam

from fewshot_ad.cli.terminal import progress_bar
from fewshot_ad.encoder.weights import weights_folder
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.siamese import train

HERE = Path(__file__).parent
OUT = HERE / "out" / "simsiam.jsonl"
BACKBONES = {"resnet18": "resnet18_parts", "convnext_atto": "convnext_atto_parts"}
RATES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
# 544 images of 68 products: 34 steps per epoch. At least 1,000 steps each, whatever the batch.
SETTINGS: dict[str, Any] = {
    "size": 96,
    "batch": 16,
    "epochs": 30,
    "generated": 2,
    "generated_images": 8,
    "registration": None,
}
# What the table calls each change, and the settings it stands for; `x` stands for the learning rate.
CHANGES: dict[str, dict[str, Any]] = {
    "P at a constant rate": {"predictor_rate": "x"},
    "P at ten times the rate, constant": {"predictor_rate": "10x"},
    "weight decay 0": {"weight_decay": 0.0},
    "weight decay 1e-3": {"weight_decay": 1e-3},
    "warm-up of 100 steps": {"warmup": 100},
    "batch 8": {"batch": 8, "epochs": 15},
    "batch 32": {"batch": 32, "epochs": 60},
    "4,080 steps": {"epochs": 120},
}


def best_rate(rows: list[dict[str, Any]], backbone: str) -> float:
    """The rate of the lowest loss of a backbone, among runs that reached their end."""
    rates = [row for row in rows if row["backbone"] == backbone and not row["change"] and not row["ended"]]
    return float(min(rates, key=lambda row: row["loss"][-1])["rate"])


def changed(change: str, rate: float) -> dict[str, Any]:
    """The settings of a change at a learning rate."""
    factors = {"x": 1, "10x": 10}
    changes = {k: factors[v] * rate if v in factors else v for k, v in CHANGES.get(change, {}).items()}
    return SETTINGS | changes


def run(backbone: str, rate: float, change: str, folder: Path) -> dict[str, Any]:
    """One training; its curves."""
    init = weights_folder() / f"{BACKBONES[backbone]}.safetensors"
    settings = changed(change, rate)
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
        "change": change,
        "settings": settings,
        "steps": lines[-1]["step"],
        "loss": [line["simsiam"] for line in lines],
        "spread": [line["spread"] for line in lines],
        "content": [line["content"] for line in lines],
        "ended": reason,
    }


def plot(rows: list[dict[str, Any]], folder: Path) -> None:
    """Loss and collapse monitor over the steps, for the rates of each backbone."""
    from matplotlib.figure import Figure

    curves = {"loss": "SimSiam loss", "spread": "spread (0: collapsed)", "content": "content (0: the place alone)"}
    curves = {name: label for name, label in curves.items() if any(name in row for row in rows)}
    figure = Figure(figsize=(9, 2.7 * len(curves)), layout="constrained")
    for column, backbone in enumerate(BACKBONES):
        for line, (name, label) in enumerate(curves.items()):
            axes = figure.add_subplot(len(curves), len(BACKBONES), 1 + column + line * len(BACKBONES))
            for row in sorted(rows, key=lambda row: row["rate"]):
                if row["backbone"] == backbone and not row["change"] and name in row:
                    steps = [(n + 1) * row["steps"] / len(row[name]) for n in range(len(row[name]))]
                    axes.plot(steps, row[name], label=f"{row['rate']:g}")
            axes.set(title=f"{backbone}, {label}", xlabel="steps", ylim=(-1.02, 0.1) if name == "loss" else (0, 1.02))
            axes.grid(True, alpha=0.3)
            if axes.lines:
                axes.legend(title="learning rate", fontsize=7)
    figure.savefig(folder / "simsiam.png", dpi=90)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The recorded runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def record(out: Path, backbone: str, rate: float, change: str) -> None:
    """Run what is not recorded yet; a run that was killed goes on."""
    if any((row["backbone"], row["rate"], row["change"]) == (backbone, rate, change) for row in read_rows(out)):
        return
    folder = out.parent / "simsiam" / f"{backbone}_{rate:g}_{change.replace(' ', '_')}"
    row = run(backbone, rate, change, folder)
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    shutil.rmtree(folder)
    print(simsiam([row]), flush=True)


def main() -> None:
    """Train or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="record file, added to")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--changes", nargs="*", default=list(CHANGES), choices=list(CHANGES))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--plot", type=Path, help="folder for a picture of the curves")
    parser.add_argument("--report", action="store_true", help="print the table of what is recorded, compute nothing")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if not args.report:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for backbone in args.backbones:
            for rate in args.rates:
                record(args.out, backbone, rate, "")
            for change in args.changes:
                record(args.out, backbone, best_rate(read_rows(args.out), backbone), change)
    print(simsiam(read_rows(args.out)))
    if args.plot:
        plot(read_rows(args.out), args.plot)


if __name__ == "__main__":
    main()
