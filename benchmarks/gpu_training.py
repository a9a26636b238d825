"""Long trainings of encoders on one GPU, side by side within a given time: for where one is at hand for minutes.

Each run first times its own steps while the others do so as well, and then takes as many epochs as fit, so that its
learning rate reaches zero in time. What it takes is in its recipe. A run that was killed goes on with the same command.

    python benchmarks/gpu_training.py --minutes 9 --out trained        # there: tensors and logs of every run
    python benchmarks/gpu_training.py --publish trained                # anywhere: cards and ONNX files from them
    python benchmarks/gpu_training.py --board trained                  # these on the shared board, at four images

Without a GPU it runs as well, on the CPU, where nine minutes are a few steps: `--minutes 600`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from fewshot_ad.encoder.siamese import SiameseEncoder
from fewshot_ad.host.cores import usable_cores
from fewshot_ad.training.images import generated_categories
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.run import CHECKPOINT, RECIPE, read_recipe
from fewshot_ad.training.siamese import train

HERE = Path(__file__).parent
SHIPPED = HERE.parent / "fewshot_ad" / "training" / "recipes" / "siamese.yaml"
LICENSE = "Apache-2.0"
# What the runs change in the recipe `siamese`: larger images, more products, and transformers that follow first of all.
LONG: dict[str, Any] = {"size": 224, "generated": 24, "equivariance": 4.0}
PLAIN: dict[str, Any] = {"registration": None, "equivariance": 0.0}
LITE0: dict[str, Any] = {"backbone": "tf_efficientnet_lite0", "init": "lite0_parts", **PLAIN}
RUNS: dict[str, dict[str, Any]] = {
    "resnet18_siamese": {},
    "convnext_siamese": {"backbone": "convnext_atto", "init": "convnext_atto_parts"},
    "lite0_siamese": LITE0,
    "lite0_tuned": {**LITE0, "simsiam": 0.0, "anchor": 0.5},
    "lite0_frozen": {**LITE0, "simsiam": 0.0, "freeze": True, "freeze_statistics": False, "backbone_rate": None},
}
# What each run is, in the table.
TITLES = {
    "resnet18_siamese": "ResNet18 with transformers, SimSiam, margin, anchor 0.05",
    "convnext_siamese": "ConvNeXt-Atto with transformers, SimSiam, margin, anchor 0.05",
    "lite0_siamese": "Lite0, SimSiam, margin, anchor 0.05",
    "lite0_tuned": "Lite0, margin, anchor 0.5 (lite0_tuned)",
    "lite0_frozen": "Lite0 frozen, E by margin, anchor 0.05",
}
BOARD = {"image_size": 256, "views": "hflip,vflip,rotate=180", "budget": 2000}
# Products per category and epochs of the run that times the steps; its last epoch counts.
TRIAL: dict[str, Any] = {"generated": 4, "epochs": 2}
# Share of the time left that the epochs are to fill.
SAFETY = 0.9
# Seconds kept for writing what is there when the time is up.
RESERVE = 12.0


def recipe(name: str) -> TrainingRecipe:
    """The recipe of a run, but for its epochs."""
    return dataclasses.replace(read_recipe(SHIPPED, TrainingRecipe), **{**LONG, **RUNS[name]})


def run(name: str, out: Path, deadline: float, loaders: int, device: str | None) -> None:
    """Time the steps, then train for as many epochs as fit before the deadline (seconds since the epoch)."""
    folder, settings = out / "runs" / name, recipe(name)
    if (folder / RECIPE).exists():
        settings = read_recipe(folder / RECIPE, TrainingRecipe)
    else:
        trial = dataclasses.replace(settings, **TRIAL)
        start = time.time()
        train(trial, out / "trials" / name, device=device, loaders=loaders, restart=True)
        line = json.loads((out / "trials" / name / "log.jsonl").read_text().splitlines()[-1])
        images = line["step"] * trial.batch // trial.epochs
        training_s = trial.epochs * images / line["pairs_per_s"]
        rendering_s = max(time.time() - start - training_s, 0) * settings.generated / trial.generated
        left = (deadline - time.time() - RESERVE) * SAFETY - rendering_s
        epoch_s = images * settings.generated / trial.generated / line["pairs_per_s"]
        settings = dataclasses.replace(settings, epochs=max(1, int(left / epoch_s)))
        print(f"{name}: {line['pairs_per_s']} pairs/s, {settings.epochs} epochs of {epoch_s:.1f} s", flush=True)
    result = train(settings, folder, device=device, loaders=loaders)
    if result is not None:
        _write(out, name, result.encoder.state_dict())


def _write(out: Path, name: str, tensors: dict[str, torch.Tensor]) -> None:
    kept = {key: value.cpu().contiguous() for key, value in tensors.items() if not key.startswith("P.")}
    save_file(kept, out / f"{name}.safetensors")


def run_all(names: list[str], out: Path, minutes: float, device: str | None) -> list[str]:
    """All runs as processes at the same time; of one that is not through in time, its last epoch.

    Returns:
        Names of the runs that left nothing.
    """
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + minutes * 60
    loaders = max(1, (usable_cores() - 1) // len(names))
    command = [sys.executable, __file__, "--out", str(out), "--deadline", str(deadline), "--loaders", str(loaders)]
    command += ["--device", device] if device else []
    running = {name: subprocess.Popen([*command, "--run", name]) for name in names}
    while any(process.poll() is None for process in running.values()) and time.time() < deadline - RESERVE:
        time.sleep(0.5)
    unfinished = []
    for name, process in running.items():
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.returncode == 0:
            continue
        unfinished.append(name)
        checkpoint = out / "runs" / name / CHECKPOINT
        if checkpoint.exists():
            stored = load_file(checkpoint)
            _write(out, name, {key[7:]: value for key, value in stored.items() if key.startswith("module.")})
        print(f"{name}: not through, {'its last epoch' if checkpoint.exists() else 'nothing'} is kept", flush=True)
    logs = {}
    for name in names:
        folder = out / "runs" / name
        if (folder / "log.jsonl").exists():
            lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
            finished = name not in unfinished
            logs[name] = {"recipe": (folder / RECIPE).read_text(), "finished": finished, "log": lines}
    (out / "logs.json").write_text(json.dumps(logs, indent=1))
    for name, entry in logs.items():
        print(name, json.dumps(entry["log"][-1]), flush=True)
    return [name for name in names if not (out / f"{name}.safetensors").exists()]


def publish_all(out: Path) -> None:
    """Cards and ONNX files of all runs whose tensors are in a folder, beside them."""
    from fewshot_ad.training.publish import publish

    logs = json.loads((out / "logs.json").read_text())
    for file in sorted(out.glob("*.safetensors")):
        name = file.stem
        (out / f"{name}.yaml").write_text(logs[name]["recipe"])
        settings = read_recipe(out / f"{name}.yaml", TrainingRecipe)
        encoder = SiameseEncoder(settings.architecture)
        encoder.load_state_dict(load_file(file), strict=False)
        if settings.keep > 0 and not logs[name]["finished"]:
            encoder.keep_initial(settings.keep)  # which a run does at its end
        images = len(generated_categories()) * settings.generated * settings.generated_images
        publish(
            encoder.eval(),
            out / "encoders",
            name,
            recipe=settings,
            data=[{"name": "generated parts", "images": images, "license": LICENSE}],
            initialization=f"{settings.init} ({LICENSE})",
            license=LICENSE,
            source="benchmarks/gpu_training.py",
            replace=True,
        )
        print(out / "encoders" / f"{name}.json", flush=True)


def board(out: Path) -> None:
    """Inspect the shared board with the encoders of a folder of results, each a method."""
    # Not at the top: training needs less, and a machine that is lent may have no more.
    from fewshot_ad.benchmark import record, tables
    from fewshot_ad.benchmark.plan_file import parse_plan
    from fewshot_ad.benchmark.run import processes, run_plan

    methods = {
        title: {
            "baseline": "fewshot_ad",
            "options": {"encoder": str((out / "encoders" / f"{name}.json").resolve()), **BOARD},
        }
        for name, title in TITLES.items()
        if (out / "encoders" / f"{name}.json").exists()
    }
    content = yaml.safe_load((HERE / "encoder_board.yaml").read_text())
    plan = parse_plan(content | {"name": "Encoders trained on a GPU", "shots": [4], "methods": methods}, HERE)
    for state in run_plan(plan, out / "board.jsonl", processes(1)):
        print(f"{state.jobs}/{state.total} jobs, {state.failures} failed: {state.last or 'start'}", flush=True)
    print(tables.markdown(record.read(out / "board.jsonl")))


def main() -> None:
    """Train, publish what was trained, or inspect with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "out" / "gpu_training", help="folder of the results")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU if there is one")
    parser.add_argument("--publish", type=Path, metavar="OUT", help="write the encoders of a folder of results")
    parser.add_argument("--board", type=Path, metavar="OUT", help="inspect with the published encoders of a folder")
    parser.add_argument("--run", choices=list(RUNS), help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--loaders", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.publish:
        publish_all(args.publish)
    elif args.board:
        board(args.board)
    elif args.run:
        run(args.run, args.out, args.deadline, args.loaders, args.device)
    else:
        missing = run_all(args.runs, args.out, args.minutes, args.device)
        if missing:
            raise SystemExit(f"nothing came of {', '.join(missing)}")


if __name__ == "__main__":
    main()
