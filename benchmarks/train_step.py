"""Seconds per step of the recipe `siamese` for each backbone, on random weights: a dry run before a long training.

ConvNeXt-Tiny, the second backbone of the method's source, needs ImageNet weights, which do not ship; with a file of
them at hand the command is

    fewshot-ad train images/ parts -o tiny --recipe siamese --set backbone=convnext_tiny --set init=tiny.safetensors

and this script says beforehand how long it will take.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --device cuda
    python benchmarks/train_step.py --record    # and put the figures on record
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from time import perf_counter

import measured_tables
import measurements
import numpy as np
import timm
from safetensors.torch import save_file

from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.run import read_recipe
from fewshot_ad.training.siamese import train

SHIPPED = Path(__file__).parent.parent / "fewshot_ad" / "training" / "recipes" / "siamese.yaml"
BACKBONES = ("resnet18", "convnext_atto", "convnext_pico", "convnext_tiny")


def main() -> None:
    """A few steps of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--device", default=None, choices=["cpu", "cuda"])
    measurements.add_record_option(parser)
    args = parser.parse_args()
    rows = []
    for backbone in args.backbones:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            network = timm.create_model(backbone, pretrained=False)
            save_file(network.state_dict(), folder / "random.safetensors")
            recipe = dataclasses.replace(
                read_recipe(SHIPPED, TrainingRecipe),
                backbone=backbone,
                init=str(folder / "random.safetensors"),
                # 204 images: six steps.
                generated=2,
                generated_images=3,
                epochs=1,
            )
            ends: list[float] = []
            train(
                recipe, folder / "run", device=args.device, progress=lambda *_, ends=ends: ends.append(perf_counter())
            )
        # The first step waits for the first batch.
        seconds = float(np.median(np.diff(ends)))
        steps = read_recipe(SHIPPED, TrainingRecipe).epochs * 68
        rows.append(
            {
                "backbone": backbone,
                "parameters": sum(p.numel() for p in network.parameters()) / 1e6,
                "step_s": seconds,
                "minutes": seconds * steps / 60,
            }
        )
        print(rows[-1], flush=True)
    measured_tables.finish("train_step", rows, args.record)


if __name__ == "__main__":
    main()
