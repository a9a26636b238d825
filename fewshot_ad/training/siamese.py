"""Trains a Siamese encoder, once, on good images of many parts.

The published recipe: pairs of images of one category, one of them augmented, and the SimSiam loss at every location.
Three losses can be added, each with its own weight (0 = off):

- `margin`: defects are drawn on one image of the pair. A defective patch must be farther from its nearest neighbor in
  other images of the category than good patches are: the criterion of a memory bank, as a loss.
- `anchor`: the feature maps, and a residual E, must stay close to their initial values.
- `equivariance`: the transformers' pose of a warped image must be the warp of its pose, so that they register instead
  of moving both images of a pair to where any two agree.

Sources: Chen & He 2021 (SimSiam); Huang et al. 2022 (RegAD: pairs of one category, registration); Li et al. 2021
(CutPaste) for drawn defects as negatives.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewshot_ad.arguments import flag
from fewshot_ad.arrays import Progress
from fewshot_ad.encoder.pyramid import load_pyramid
from fewshot_ad.encoder.siamese import SiameseEncoder, three_stages
from fewshot_ad.encoder.weights import initial_weights
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.images import check_folders
from fewshot_ad.training.loaders import number_of_loaders, prefetch
from fewshot_ad.training.losses import Losses
from fewshot_ad.training.pairs import Pairs
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.run import (
    CONSTANT,
    FACTOR,
    Clock,
    RunFolder,
    Workers,
    check_run_folder,
    join_workers,
    memory_advice,
    one_cosine,
    set_learning_rate,
)

log = logging.getLogger(__name__)

# Limits of the embedding's spread (see `encoder.siamese.spread`) below which training warns, and below which it stops.
COLLAPSE_WARNING, COLLAPSED = 0.3, 0.1
# What `Losses` returns besides losses.
MONITORS = ("spread", "content")
MAX_GRADIENT_NORM = 5.0


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        encoder: The network after the last epoch.
        data: Names, counts and licenses of the training data.
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
    loaders: int | None = None,
    restart: bool = False,
    allow_download: bool = False,
    progress: Progress | None = None,
) -> TrainingResult | None:
    """Train an encoder, or resume a run that was killed. The result is the last epoch; no epoch is selected.

    Args:
        recipe: The recipe.
        output: Folder of the run, for the recipe, the log (one line per epoch) and the checkpoint.
        device: `cpu` or `cuda`; None = a GPU if there is one. `torchrun` starts several processes.
        loaders: Number of processes that prepare the images; None = none on the CPU, whose cores train, and on a GPU
            one per further core, at most 16. It changes nothing but the time.
        restart: Whether to discard an existing run and start anew.
        allow_download: Whether timm may fetch the initial weights, as `init: timm` asks for.
        progress: Called with (`train`, steps done, steps in all).

    Returns:
        The result in the main process; None in the other processes of `torchrun`.

    Raises:
        TrainingError: The data, the recipe or the machine do not allow it, or the embedding collapsed.
        WeightsError: The initial weights cannot be loaded.
    """
    # What can be wrong with the input is said before anything is fetched or loaded.
    flag(restart, "restart", TrainingError)
    flag(allow_download, "allow_download", TrainingError)
    check_folders(recipe.folders, 2, leave_out=recipe.leave_out)
    if recipe.init == "timm" and not allow_download:
        raise TrainingError(
            f"expected leave to fetch the initial weights of {recipe.backbone}, for the recipe says init: timm, got "
            "none. Give allow_download=True (--allow-download), or train offline: the recipe `parts`, `tuned` or "
            "`siamese`, or init=FILE."
        )
    with join_workers(device) as workers, memory_advice(recipe.batch // recipe.accumulate, recipe.size):
        torch.manual_seed(recipe.seed)
        processes = number_of_loaders(loaders, workers)
        if workers.is_main:
            check_run_folder(output, type(recipe), [recipe.init])
        source = None if recipe.init in ("bundled", "timm") else initial_weights(recipe.init, recipe.backbone)
        stages = three_stages(recipe.backbone)
        advice = "init=FILE (command line: --set init=FILE)"
        pyramid = load_pyramid(recipe.backbone, source, stages, recipe.init == "timm", advice)
        encoder = SiameseEncoder(recipe.architecture, pyramid).to(workers.device)
        pairs = Pairs(recipe, workers, processes)
        with workers.main_first():
            run = RunFolder(output, recipe, restart=restart and workers.is_main)
        _fit(recipe, encoder, run, pairs, workers, processes, progress)
        if recipe.keep > 0:
            encoder.keep_initial(recipe.keep)
        return TrainingResult(encoder.eval(), pairs.data, run.folder) if workers.is_main else None


def _fit(
    recipe: TrainingRecipe,
    encoder: SiameseEncoder,
    run: RunFolder,
    pairs: Pairs,
    workers: Workers,
    loaders: int,
    progress: Progress | None,
) -> None:
    encoder.pyramid.requires_grad_(not recipe.freeze)
    encoder.to(memory_format=torch.channels_last)
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = _optimizer(recipe, encoder, parameters)
    losses = Losses(recipe, encoder)
    first, total = run.resume(encoder, optimizer), recipe.epochs * pairs.steps
    if recipe.warmup >= total:
        raise TrainingError(
            f"expected warmup of fewer steps than the run has ({total}), got {recipe.warmup}: the learning rate would "
            "never reach its value. Lower warmup, or raise epochs."
        )
    if first and workers.is_main:
        run.truncate_log(first)
        log.info("resuming at step %d of %d", first, total)
    _set_modes(recipe, encoder)
    clock, epoch_start = Clock(first, total), time.monotonic()
    sums: dict[str, float] = {}
    for step, batch in prefetch(pairs.batch, first, total, loaders):
        set_learning_rate(optimizer, recipe.learning_rate * one_cosine(step, total, recipe.warmup))
        optimizer.zero_grad(set_to_none=True)
        for name, value in _backward(recipe, losses, batch, step, workers.device).items():
            sums[name] = sums.get(name, 0.0) + value / pairs.steps
        workers.average_gradients(encoder)
        nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        done = step + 1
        if progress is not None and workers.is_main:
            progress("train", done, total)
        if done % pairs.steps == 0:
            epoch = done // pairs.steps
            if workers.is_main:
                run.save(done, encoder, optimizer)
                line = {"epoch": epoch, "step": done, **{name: round(value, 5) for name, value in sums.items()}}
                line |= {
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "pairs_per_s": round(pairs.steps * recipe.batch / (time.monotonic() - epoch_start), 1),
                    "eta_s": round(clock.eta_s(done)),
                }
                run.log(line)
            _check_epoch(sums, epoch)
            sums, epoch_start = {}, time.monotonic()


def _set_modes(recipe: TrainingRecipe, encoder: SiameseEncoder) -> None:
    """Training mode, but for what keeps its statistics."""
    encoder.train()
    if recipe.freeze:
        encoder.pyramid.eval()
    elif recipe.freeze_statistics:
        for module in encoder.pyramid.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _optimizer(
    recipe: TrainingRecipe, encoder: SiameseEncoder, parameters: list[nn.Parameter]
) -> torch.optim.Optimizer:
    own: list[dict[str, Any]] = []
    if recipe.predictor_rate is not None:
        own.append({"params": list(encoder.P.parameters()), "lr": recipe.predictor_rate, CONSTANT: True})
    if recipe.backbone_rate is not None and not recipe.freeze:
        factor = recipe.backbone_rate / recipe.learning_rate
        own.append({"params": list(encoder.pyramid.parameters()), FACTOR: factor})
    elsewhere = {parameter for group in own for parameter in group["params"]}
    groups = [{"params": [p for p in parameters if p not in elsewhere]}, *own]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _backward(
    recipe: TrainingRecipe, losses: Losses, batch: tuple[torch.Tensor, ...], step: int, device: torch.device
) -> dict[str, float]:
    """Accumulate the gradients of one batch; the mean losses and spread over its parts."""
    batch = tuple(part.to(device) for part in batch)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
    means: dict[str, float] = {}
    for n in range(recipe.accumulate):
        part = tuple(tensor.chunk(recipe.accumulate)[n] if len(tensor) else tensor for tensor in batch)
        with autocast:
            values = losses(part, recipe.seed * 7919 + step)
        terms = [getattr(recipe, name) * value for name, value in values.items() if name not in MONITORS]
        (torch.stack(terms).sum() / recipe.accumulate).backward()
        for name, value in values.items():
            means[name] = means.get(name, 0.0) + float(value.detach()) / recipe.accumulate
    return means


def _check_epoch(means: dict[str, float], epoch: int) -> None:
    """Warn if the embedding may collapse.

    Raises:
        TrainingError: The losses are not finite, or the embedding has collapsed.
    """
    if not all(np.isfinite(value) for value in means.values()):
        raise TrainingError(
            f"the loss is no longer a number in epoch {epoch}. Lower learning_rate and start anew (--restart)."
        )
    if means["spread"] < COLLAPSED:
        raise TrainingError(
            f"collapse in epoch {epoch}: all embeddings are nearly the same (spread {means['spread']:.3f} of the "
            f"1/sqrt(d) of an even spread, limit {COLLAPSED}). Lower learning_rate, freeze the backbone, or give "
            "`margin` or `anchor` a weight, and start anew (--restart)."
        )
    if means["spread"] < COLLAPSE_WARNING:
        log.warning(
            "epoch %d: the embeddings are close to each other (spread %.3f, evenly spread: 1): a collapse may come.",
            epoch,
            means["spread"],
        )
