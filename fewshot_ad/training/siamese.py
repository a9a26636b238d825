"""Training of a Siamese encoder, once, on good images of many parts.

The published recipe: pairs of images of one category, one of them augmented, SimSiam's loss at every location.
Two terms can be added, each with a weight of its own (0 leaves it out):

- `margin`: defects are drawn on one image of the pair; where they are, the nearest neighbor among the other
  images of the category must be farther away than anywhere a good part shows. It is what a memory bank is used
  for afterwards, as a loss.
- `anchor`: the stage features, and a residual E, must stay close to the initialization.

Sources: Chen & He 2021 (SimSiam); Huang et al. 2022 (RegAD: pairs of one category, registration); Li et al. 2021
(CutPaste) for drawn defects as negatives.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewshot_ad.arrays import Progress
from fewshot_ad.encoder.pyramid import load_pyramid
from fewshot_ad.encoder.siamese import SiameseEncoder, three_stages
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.distillation import one_cosine
from fewshot_ad.training.losses import Losses
from fewshot_ad.training.pairs import Pairs
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.run import Clock, RunFolder, Workers, memory_advice, workers

log = logging.getLogger(__name__)

# Spread of the normalized embedding against 1/sqrt(d): below the first training warns, below the second it stops.
COLLAPSE_WARNING, COLLAPSED = 0.3, 0.1


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        encoder: The network after the last epoch.
        data: Names, counts and licenses of what it was trained on.
        folder: The run's folder, with recipe and log.
    """

    encoder: SiameseEncoder
    data: tuple[dict[str, Any], ...]
    folder: Path


def train(
    recipe: TrainingRecipe,
    output: str | Path,
    *,
    device: str | None = None,
    restart: bool = False,
    progress: Progress | None = None,
) -> Trained | None:
    """Train an encoder; goes on where a killed run stopped. The last epoch is the model: nothing is selected.

    Args:
        recipe: What to do.
        output: Folder of the run; receives the recipe, the log (a line an epoch) and the checkpoint.
        device: `cpu` or `cuda`; None takes a GPU if there is one. Several processes through `torchrun`.
        restart: Throw away a run that is there.
        progress: Called with (`train`, steps done, steps in all).

    Returns:
        The result, in the first process; None in the others of `torchrun`.

    Raises:
        TrainingError: Data, recipe or machine do not allow it, or the embedding collapsed.
        WeightsError: The initial weights cannot be had.
    """
    with workers(device) as crew, memory_advice(recipe.batch // recipe.accumulate, recipe.size):
        torch.manual_seed(recipe.seed)
        source = None if recipe.init in ("bundled", "timm") else recipe.init
        pyramid = load_pyramid(recipe.backbone, source, three_stages(recipe.backbone), recipe.init == "timm")
        encoder = SiameseEncoder(recipe.architecture, pyramid).to(crew.device)
        pairs = Pairs(recipe, crew)
        with crew.first_goes_first():
            run = RunFolder(output, recipe, restart=restart and crew.is_first)
        _fit(recipe, encoder, run, pairs, crew, progress)
        if recipe.keep > 0:
            encoder.keep_initial(recipe.keep)
        return Trained(encoder.eval(), pairs.data, run.folder) if crew.is_first else None


def _fit(
    recipe: TrainingRecipe,
    encoder: SiameseEncoder,
    run: RunFolder,
    pairs: Pairs,
    crew: Workers,
    progress: Progress | None,
) -> None:
    encoder.pyramid.requires_grad_(not recipe.freeze)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            trained, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    losses = Losses(recipe, encoder)
    encoder.to(memory_format=torch.channels_last)
    first, total = run.resume(encoder, optimizer), recipe.epochs * pairs.steps
    if first and crew.is_first:
        run.forget_after(first)
        log.info("going on at step %d of %d", first, total)
    encoder.train()
    if recipe.freeze:
        encoder.pyramid.eval()  # batch norm keeps its statistics too
    device, clock, start = crew.device, Clock(first, total), time.monotonic()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
    sums: dict[str, float] = {}
    with ThreadPoolExecutor(1) as loader:
        coming = loader.submit(pairs.batch, first)
        for step in range(first, total):
            batch = [part.to(device) for part in coming.result()]
            coming = loader.submit(pairs.batch, step + 1)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * one_cosine(step, total)
            optimizer.zero_grad(set_to_none=True)
            for n in range(recipe.accumulate):
                part = tuple(tensor.chunk(recipe.accumulate)[n] if len(tensor) else tensor for tensor in batch)
                with autocast:
                    found = losses(part, recipe.seed * 7919 + step)
                terms = [getattr(recipe, name) * value for name, value in found.items() if name != "spread"]
                (torch.stack(terms).sum() / recipe.accumulate).backward()
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach()) / recipe.accumulate / pairs.steps
            crew.mean_gradients(encoder)
            nn.utils.clip_grad_norm_(trained, 5.0)
            optimizer.step()
            done = step + 1
            if progress is not None and crew.is_first:
                progress("train", done, total)
            if done % pairs.steps == 0:
                if crew.is_first:
                    run.save(done, encoder, optimizer)
                    line = {"epoch": done // pairs.steps, "step": done, **{k: round(v, 5) for k, v in sums.items()}}
                    line |= {
                        "learning_rate": optimizer.param_groups[0]["lr"],
                        "pairs_per_s": round(pairs.steps * recipe.batch / (time.monotonic() - start), 1),
                        "eta_s": round(clock.eta_s(done)),
                    }
                    run.log(line)
                _watch(sums, done // pairs.steps)
                sums, start = {}, time.monotonic()


def _watch(sums: dict[str, float], epoch: int) -> None:
    """Stop what cannot become an encoder any more."""
    if not all(np.isfinite(value) for value in sums.values()):
        raise TrainingError(
            f"the loss is no longer a number in epoch {epoch}. Lower learning_rate and begin anew (--restart)."
        )
    if sums["spread"] < COLLAPSED:
        raise TrainingError(
            f"collapse in epoch {epoch}: all embeddings are nearly the same (spread {sums['spread']:.3f} of the "
            f"1/sqrt(d) of an even spread, limit {COLLAPSED}). Lower learning_rate, freeze the backbone, or give "
            "`margin` or `anchor` a weight, and begin anew (--restart)."
        )
    if sums["spread"] < COLLAPSE_WARNING:
        log.warning(
            "epoch %d: the embeddings are close to each other (spread %.3f, 1 is even): a collapse may come.",
            epoch,
            sums["spread"],
        )
