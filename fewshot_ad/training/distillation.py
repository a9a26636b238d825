"""Dense feature distillation: a student backbone learns to predict a teacher's feature maps, without labels.

At every location, 1x1 heads on the student's stages regress the teacher's features, standardized per channel, at
strides 4, 8 and 16 (of a ViT: after each third of its blocks). The heads are then discarded. The features of the
student detect defects nearly as well as the teacher's, so a ResNet18 or a ConvNeXt needs no download of weights.

Sources: Romero et al. 2015 (FitNets: regression of intermediate features through a linear head); Bergmann et al. 2020
(Uninformed Students: teacher features standardized per channel, dense, on natural-image crops).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arguments import flag
from fewshot_ad.arrays import Progress
from fewshot_ad.encoder.dinov2 import DINOV2, STAGES
from fewshot_ad.encoder.pyramid import Pyramid, deepest_stages, load_pyramid
from fewshot_ad.encoder.siamese import STRIDES, three_stages
from fewshot_ad.encoder.state_dict import read_state_dict
from fewshot_ad.encoder.weights import initial_weights
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.crops import Crops
from fewshot_ad.training.distillation_recipe import DistillationRecipe
from fewshot_ad.training.images import (
    COLLAGES,
    GENERATED,
    check_folders,
    find_categories,
    generated_categories,
)
from fewshot_ad.training.loaders import number_of_loaders, prefetch
from fewshot_ad.training.run import (
    WEIGHTS,
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

# Number of batches on which the teachers' means and standard deviations are measured.
STATISTICS_BATCHES = 16


def distill(
    recipe: DistillationRecipe,
    output: str | Path,
    *,
    device: str | None = None,
    loaders: int | None = None,
    restart: bool = False,
    progress: Progress | None = None,
) -> Path | None:
    """Distill a student from its teachers, or resume a run that was killed.

    Args:
        recipe: The recipe.
        output: Folder of the run, for the recipe, the log, the checkpoint and `backbone.safetensors`.
        device: `cpu` or `cuda`; None = a GPU if there is one. `torchrun` starts several processes.
        loaders: Number of processes that prepare the crops; None = none on the CPU, whose cores train, and on a GPU
            one per further core, at most 16. It changes nothing but the time.
        restart: Whether to discard an existing run and start anew.
        progress: Called with (`distill`, steps done, steps in all).

    Returns:
        Path of `backbone.safetensors`, the student's tensors under timm's features_only names, for `weights=` and
        `init=`; None in all processes of `torchrun` but the main one.

    Raises:
        TrainingError: The data, the recipe or the machine do not allow it.
        WeightsError: A teacher's weights cannot be loaded, or the student lacks one of the three strides.
    """
    # What can be wrong with the input is said before teachers are loaded.
    flag(restart, "restart", TrainingError)
    check_folders(recipe.folders, 1, (GENERATED, COLLAGES), recipe.leave_out)
    with join_workers(device) as workers, memory_advice(recipe.batch // recipe.accumulate, recipe.size):
        torch.manual_seed(recipe.seed)
        if workers.is_main:
            files = [file for file in (recipe.student_weights, *recipe.teacher_weights) if file is not None]
            check_run_folder(output, type(recipe), files)
        processes = number_of_loaders(loaders, workers)
        teachers = [
            load_pyramid(name, None if file == "bundled" else file, recipe.teacher_stages or teacher_stages(name))
            for name, file in zip(recipe.teachers, recipe.teacher_weights, strict=True)
        ]
        student = Pyramid(recipe.student, three_stages(recipe.student))
        if recipe.student_weights is not None:
            student.load_weights(read_state_dict(initial_weights(recipe.student_weights, recipe.student)))
        model = Distiller(student, teachers).to(workers.device)
        for teacher in teachers:
            teacher.to(workers.device, memory_format=torch.channels_last)
        with workers.main_first():
            run = RunFolder(output, recipe, restart=restart and workers.is_main)
        crops = Crops(recipe, workers, processes)
        _fit(recipe, model, run, crops, workers, processes, progress)
        if not workers.is_main:
            return None
        student.save_weights(run.folder / WEIGHTS)
        return run.folder / WEIGHTS


def training_data(recipe: DistillationRecipe) -> tuple[dict[str, Any], ...]:
    """Names, counts and licenses of the images of a distillation, for the card."""
    data: list[dict[str, Any]] = []
    for folder in recipe.folders:
        if folder in (GENERATED, COLLAGES):
            count = recipe.generated * len(generated_categories(recipe.leave_out))
            data.append({"name": f"generated {folder}", "images": count, "license": "Apache-2.0"})
            continue
        for category in find_categories([folder]):
            if category.name in recipe.leave_out:
                continue
            data.append({"name": category.name, "images": len(category.files), "license": "not stated"})
    return tuple(data)


def teacher_stages(backbone: str) -> tuple[int, ...]:
    """Timm's stage indices of a teacher at strides 4, 8 and 16, the deepest stage of each stride.

    Of a ViT, which has a single stride, the last block of each third; of `dinov2_small` its own stage.

    Raises:
        TrainingError: The backbone has none of these strides.
    """
    if backbone == DINOV2:
        return STAGES
    strides = Pyramid(backbone, None).all_strides
    if len(set(strides)) == 1 and len(strides) >= 3:
        return tuple(len(strides) * third // 3 - 1 for third in (1, 2, 3))
    stages = deepest_stages(strides, STRIDES)
    if not stages:
        raise TrainingError(f"{backbone}: expected stages at strides {STRIDES}, got {strides}.")
    return stages


class Distiller(nn.Module):
    """Student backbone with one 1x1 head for each feature map of each teacher.

    Args:
        student: The backbone to train; its feature maps are used before local averaging.
        teachers: The backbones to predict; they are frozen.

    Attributes:
        pairs: For each head: index of the teacher, index of the teacher's feature map, index of the student's.
    """

    def __init__(self, student: Pyramid, teachers: Sequence[Pyramid]) -> None:
        super().__init__()
        self.student = student
        # In a list, so that torch does not register them: teachers are neither trained nor stored.
        self._teachers = [teacher.requires_grad_(False).eval() for teacher in teachers]
        self.pairs = [
            (t, level, i)
            for t, teacher in enumerate(teachers)
            for level, i in enumerate(_student_stages(teacher, student))
        ]
        self.heads = nn.ModuleList(
            nn.Conv2d(student.channels[i], teachers[t].channels[level], 1) for t, level, i in self.pairs
        )
        for n, (t, level, _) in enumerate(self.pairs):
            channels = teachers[t].channels[level]
            self.register_buffer(f"mean{n}", torch.zeros(channels))
            self.register_buffer(f"deviation{n}", torch.ones(channels))

    def targets(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The teachers' feature maps of (N, 3, H, W) images in 0..1, in the order of `pairs`."""
        with torch.no_grad():
            maps = [teacher.raw(self._fit_patches(images, teacher)) for teacher in self._teachers]
        return [maps[t][level] for t, level, _ in self.pairs]

    def _fit_patches(self, images: torch.Tensor, teacher: Pyramid) -> torch.Tensor:
        """Scale images that a ViT's patches do not divide, so that its grid is that of the student's deepest stage."""
        height, width = images.shape[2:]
        is_vit = len(set(teacher.all_strides)) == 1
        if not is_vit or (height % teacher.multiple == 0 and width % teacher.multiple == 0):
            return images
        deepest = max(self.student.strides)
        size = (height // deepest * teacher.multiple, width // deepest * teacher.multiple)
        return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)

    def measure(self, batches: Sequence[torch.Tensor]) -> None:
        """Measure mean and standard deviation of every teacher channel, for the standardization.

        Args:
            batches: (N, 3, H, W) float RGB in 0..1 each.
        """
        maps = [self.targets(batch) for batch in batches]
        for n in range(len(self.pairs)):
            features = torch.cat([m[n].float().permute(1, 0, 2, 3).flatten(1) for m in maps], 1)
            getattr(self, f"mean{n}").copy_(features.mean(1))
            getattr(self, f"deviation{n}").copy_(features.std(1).clamp_min(1e-4))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Mean squared error of each head on images (N, 3, H, W) in 0..1; a constant prediction reaches 1."""
        targets = self.targets(images)
        features = self.student.raw(images)
        losses = []
        for n, (head, target) in enumerate(zip(self.heads, targets, strict=True)):
            predicted = head(features[self.pairs[n][2]]).float()
            standardized = (target.float() - self._column(f"mean{n}")) / self._column(f"deviation{n}")
            if predicted.shape[2:] != standardized.shape[2:]:
                predicted = F.interpolate(predicted, standardized.shape[2:], mode="bilinear", align_corners=False)
            losses.append(F.mse_loss(predicted, standardized))
        return losses

    def _column(self, name: str) -> torch.Tensor:
        return getattr(self, name)[None, :, None, None]


def _student_stages(teacher: Pyramid, student: Pyramid) -> list[int]:
    """For each of the teacher's stages, the student's stage that predicts it: the one of the nearest stride.

    The blocks of a ViT all have the same stride; they are assigned to the student's stages in order.
    """
    count, blocks = len(student.strides), len(teacher.strides)
    if len(set(teacher.strides)) == 1 < blocks:
        return [min(block * count // blocks, count - 1) for block in range(blocks)]
    return [min(range(count), key=lambda i: abs(math.log(student.strides[i] / stride))) for stride in teacher.strides]


def _fit(
    recipe: DistillationRecipe,
    model: Distiller,
    run: RunFolder,
    crops: Crops,
    workers: Workers,
    loaders: int,
    progress: Progress | None,
) -> None:
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    first = run.resume(model, optimizer)
    autocast = torch.autocast(workers.device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
    if first == 0:
        with autocast:
            # Of steps after the last one, so that no training crop is among them.
            steps = range(recipe.steps + 1, recipe.steps + 1 + STATISTICS_BATCHES)
            model.measure([crops.batch(step).to(workers.device) for step in steps])
    elif workers.is_main:
        run.truncate_log(first)
        log.info("resuming at step %d of %d", first, recipe.steps)
    model.train()
    clock, sums, last_save = Clock(first, recipe.steps), torch.zeros(len(model.pairs)), first
    start = time.monotonic()
    for step, batch in prefetch(crops.batch, first, recipe.steps, loaders):
        set_learning_rate(optimizer, recipe.learning_rate * one_cosine(step, recipe.steps, recipe.warmup))
        optimizer.zero_grad(set_to_none=True)
        batch = batch.to(workers.device, memory_format=torch.channels_last)
        for part in batch.chunk(recipe.accumulate):
            with autocast:
                losses = model(part)
            (sum(losses) / len(losses) / recipe.accumulate).backward()
            sums += torch.stack(losses).detach().cpu() / recipe.accumulate
        workers.average_gradients(model)
        optimizer.step()
        done = step + 1
        if progress is not None and workers.is_main:
            progress("distill", done, recipe.steps)
        if done % recipe.checkpoint_every == 0 or done == recipe.steps:
            means = sums / (done - last_save)
            if not torch.isfinite(means).all():
                raise TrainingError(
                    f"the loss is no longer a number at step {done}. Lower learning_rate and use --restart."
                )
            if workers.is_main:
                run.save(done, model, optimizer)
                run.log(
                    {
                        "step": done,
                        "loss": round(float(means.mean()), 5),
                        "losses": [round(float(value), 5) for value in means],
                        "learning_rate": optimizer.param_groups[0]["lr"],
                        "crops_per_s": round((done - last_save) * recipe.batch / (time.monotonic() - start), 1),
                        "eta_s": round(clock.eta_s(done)),
                    }
                )
            sums.zero_()
            last_save, start = done, time.monotonic()
