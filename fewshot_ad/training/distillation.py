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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arguments import flag
from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.encoder.dinov2 import DINOV2, STAGES
from fewshot_ad.encoder.pyramid import Pyramid, deepest_stages, load_pyramid
from fewshot_ad.encoder.siamese import STRIDES, three_stages
from fewshot_ad.encoder.state_dict import read_state_dict
from fewshot_ad.encoder.weights import initial_weights
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.augmentation import PhotometricJitter, random_crop
from fewshot_ad.training.images import (
    COLLAGES,
    GENERATED,
    ImageStore,
    check_folders,
    drop_unreadable,
    find_categories,
    generated_categories,
)
from fewshot_ad.training.loaders import in_processes, number_of_loaders, prefetch
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


@dataclass(frozen=True)
class DistillationRecipe:
    """All settings of a distillation; stored as YAML with the run.

    Attributes:
        student: timm model with stages at strides 4, 8 and 16.
        folders: Folders of images, see `find_categories`; `parts` stands for the built-in generator of parts,
            `collages` for that of collages.
        leave_out: Names of categories that are not trained on, see `TrainingRecipe.leave_out`.
        teachers: timm models, or `dinov2_small`, all of which the student learns to predict.
        teacher_weights: A file of weights for each teacher, or `bundled` for the weights that come with a package
            (`tf_efficientnet_lite0`, `dinov2_small`).
        student_weights: A file of initial weights, or the name of a shipped encoder; None = random weights.
        teacher_stages: timm's stage indices of the teachers; None = the stages at strides 4, 8 and 16, of a ViT the
            last block of each third, of `dinov2_small` its own.
        size: Side of the crops in pixels, a multiple of 16.
        batch: Number of crops per step, over all processes.
        accumulate: Number of parts in which a batch is computed, to save memory.
        steps: Number of steps.
        learning_rate: Highest learning rate, reached after `warmup` steps; it then falls to 0 along half a cosine.
        weight_decay: Weight decay of AdamW.
        warmup: Number of steps of linear warm-up.
        scales: Smallest and largest magnification of a crop.
        short_side: Images with a longer short side are shrunk to this short side, in pixels.
        generated: Number of generated images per category, if `folders` has `parts`; if it has `collages`, there are
            as many collages in total.
        precision: Precision of the forward and backward pass, `bf16` or `f32`.
        seed: Seed of all random numbers.
        checkpoint_every: Number of steps between checkpoints.

    Raises:
        TrainingError: A setting is out of range, or two settings contradict each other.
    """

    student: str = "resnet18"
    folders: tuple[str, ...] = (GENERATED,)
    leave_out: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ("tf_efficientnet_lite0",)
    teacher_weights: tuple[str, ...] = ("bundled",)
    student_weights: str | None = None
    teacher_stages: tuple[int, ...] | None = None
    size: int = 160
    batch: int = 24
    accumulate: int = 1
    steps: int = 12000
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 200
    scales: tuple[float, float] = (0.5, 1.6)
    short_side: int = 256
    generated: int = 64
    precision: str = "bf16"
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 16:
            raise TrainingError(f"expected size to be a multiple of 16, at least 32, got {self.size}.")
        if self.seed < 0:
            raise TrainingError(f"expected seed of at least 0, got {self.seed}.")
        counts = (self.batch, self.steps, self.accumulate, self.checkpoint_every, self.generated)
        if min(counts) < 1 or self.batch % self.accumulate:
            raise TrainingError(
                f"expected positive steps and generated and a batch that is a multiple of accumulate, got "
                f"steps={self.steps}, generated={self.generated}, batch={self.batch}, accumulate={self.accumulate}."
            )
        if len(self.teachers) != len(self.teacher_weights) or not self.teachers:
            raise TrainingError(
                f"expected one weights file per teacher, got {len(self.teachers)} teachers and "
                f"{len(self.teacher_weights)} files."
            )
        if self.precision not in ("bf16", "f32"):
            raise TrainingError(f"expected precision among ('bf16', 'f32'), got {self.precision!r}.")
        if not 0 < self.scales[0] <= self.scales[1]:
            raise TrainingError(f"expected scales as smallest, largest magnification, got {self.scales}.")
        if not self.folders:
            raise TrainingError("expected at least one folder of images, or 'parts' or 'collages' for generated ones.")


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
        crops = _Crops(recipe, workers, processes)
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
    crops: _Crops,
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


def _made(make: Callable[[int], Uint8Array], count: int, loaders: int) -> list[Uint8Array]:
    """Images 0 to count - 1, by processes if there are any."""
    return list(in_processes(make, range(count), loaders)) if loaders else [make(index) for index in range(count)]


class _Crops:
    """Batches of crops, each determined by its step number alone."""

    def __init__(self, recipe: DistillationRecipe, workers: Workers, loaders: int) -> None:
        self._recipe, self._workers = recipe, workers
        workers.share(recipe.batch)  # what does not fit is said before any image is read
        self._store = ImageStore(recipe.short_side)
        self._sources: list[Path | Uint8Array] = []
        folders = [f for f in recipe.folders if f not in (GENERATED, COLLAGES)]
        if folders:
            found = [c for c in find_categories(folders) if c.name not in recipe.leave_out]
            categories, _ = drop_unreadable(found, self._store)
            self._sources += [path for category in categories for path in category.files]
        if {GENERATED, COLLAGES} & set(recipe.folders):
            from fewshot_ad.training.collage import collage
            from fewshot_ad.training.parts import render

            # Each image shows another product: a student needs variety, not pairs.
            products = [(name, n) for name in generated_categories(recipe.leave_out) for n in range(recipe.generated)]

            def part(index: int) -> Uint8Array:
                name, variant = products[index]
                return render(name, recipe.seed, recipe.short_side, variant=variant)

            parts = _made(part, len(products), loaders)
            if GENERATED in recipe.folders:
                self._sources += parts
            if COLLAGES in recipe.folders:
                self._sources += _made(
                    lambda n: collage(parts, recipe.seed * 1_000_003 + n, recipe.short_side), len(parts), loaders
                )
        self._jitter = PhotometricJitter()

    def batch(self, step: int) -> torch.Tensor:
        """(N, 3, size, size) float32 in 0..1: this process's share of the batch of one step."""
        recipe, workers = self._recipe, self._workers
        rng = np.random.default_rng([recipe.seed, step, workers.rank])
        indices = rng.integers(len(self._sources), size=workers.share(recipe.batch))
        crops = [random_crop(self._read(self._sources[i]), recipe.size, recipe.scales, rng) for i in indices]
        batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        return self._jitter(batch, int(rng.integers(2**31)))

    def _read(self, source: Path | Uint8Array) -> Uint8Array:
        return self._store.read(source) if isinstance(source, Path) else source
