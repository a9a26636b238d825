"""Dense feature distillation: a student backbone learns a teacher's feature maps, without labels.

At every location, 1x1 heads on the student's stages regress the teacher's channel-standardized features at strides 4,
8 and 16 (of a ViT: after each third of its blocks). The heads are thrown away; what remains is a backbone whose
features tell defects nearly as the teacher's do. So a ResNet18 or a ConvNeXt is had without a download.

Sources: Romero et al. 2015 (FitNets: regression of intermediate features through a linear head); Bergmann et al. 2020
(Uninformed Students: teacher features standardized per channel, dense, on natural-image crops).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.encoder.pyramid import Pyramid, load_pyramid, read_state_dict
from fewshot_ad.encoder.siamese import STRIDES, three_stages
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.augmentation import PhotometricJitter, random_crop
from fewshot_ad.training.images import COLLAGES, GENERATED, ImageStore, find_categories, readable
from fewshot_ad.training.run import Clock, RunFolder, Workers, memory_advice, workers

log = logging.getLogger(__name__)

STATISTICS_BATCHES = 16


@dataclass(frozen=True)
class DistillationRecipe:
    """What a distillation is made of; stored as YAML with the run.

    Attributes:
        student: timm model with stages at strides 4, 8 and 16.
        folders: Images, see `find_categories`; `parts` stands for the built-in generator of parts, `collages` for
            that of collages.
        teachers: timm models; the student regresses each.
        teacher_weights: A file for each teacher, `bundled` for the weights that come with the package
            (`tf_efficientnet_lite0`), or a file of a foreign package.
        student_weights: A file to start from; None starts from random weights.
        teacher_stages: timm stage indices of the teachers; None takes strides 4, 8 and 16, of a ViT the last block of
            each third.
        size: Side of the crops in pixels, a multiple of 16.
        batch: Crops a step, over all processes.
        accumulate: The batch is computed in this many parts, to save memory.
        steps: Number of steps.
        learning_rate: Peak, reached after `warmup` steps; one cosine down to zero.
        weight_decay: AdamW's.
        warmup: Steps of linear warm-up.
        scales: Smallest and largest magnification of a crop.
        short_side: Images are shrunk to this short side when read.
        generated: Number of generated images a category, if `folders` has `parts`; as many in all are collages, if
            it has `collages`.
        precision: `bf16` or `f32` of the forward and backward pass.
        seed: Seed of everything random.
        checkpoint_every: Steps between checkpoints.
    """

    student: str = "resnet18"
    folders: tuple[str, ...] = (GENERATED,)
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
        counts = (self.batch, self.steps, self.accumulate, self.checkpoint_every, self.generated)
        if min(counts) < 1 or self.batch % self.accumulate:
            raise TrainingError(
                f"expected positive steps and generated and a batch that is a multiple of accumulate, got "
                f"steps={self.steps}, generated={self.generated}, batch={self.batch}, accumulate={self.accumulate}."
            )
        if len(self.teachers) != len(self.teacher_weights) or not self.teachers:
            raise TrainingError(
                f"expected one weights file a teacher, got {len(self.teachers)} teachers and "
                f"{len(self.teacher_weights)} files."
            )
        if self.precision not in ("bf16", "f32"):
            raise TrainingError(f"expected precision among ('bf16', 'f32'), got {self.precision!r}.")
        if not 0 < self.scales[0] <= self.scales[1]:
            raise TrainingError(f"expected scales as smallest, largest magnification, got {self.scales}.")
        if not self.folders:
            raise TrainingError("expected at least one folder of images, or 'parts' or 'collages' for generated ones.")


def stages_at(pyramid_name: str) -> tuple[int, ...]:
    """Timm's stage indices of a teacher at strides 4, 8 and 16, the deepest of each.

    Of a ViT, which has one stride only, the last block of each third.

    Raises:
        TrainingError: The backbone has none of them.
    """
    have = Pyramid(pyramid_name, None).all_strides
    found = tuple(i for i, s in enumerate(have) if s in STRIDES and s not in have[i + 1 :])
    if len(set(have)) == 1 and len(have) >= 3:
        return tuple(len(have) * third // 3 - 1 for third in (1, 2, 3))
    if not found:
        raise TrainingError(f"{pyramid_name}: expected stages at strides {STRIDES}, got {have}.")
    return found


def _partners(teacher: Pyramid, student: Pyramid) -> list[int]:
    """Which of the student's stages regresses each of the teacher's: the one of the nearest stride.

    The blocks of a ViT all have the same stride; they go to the student's stages in order.
    """
    have, count = student.strides, len(student.strides)
    if len(set(teacher.strides)) == 1 < len(teacher.strides):
        return [min(level * count // len(teacher.strides), count - 1) for level in range(len(teacher.strides))]
    return [min(range(count), key=lambda i: abs(math.log(have[i] / stride))) for stride in teacher.strides]


class Distiller(nn.Module):
    """Student backbone with a 1x1 head for each feature map of each teacher.

    Args:
        student: Raw stage features are taken from it, before local averaging.
        teachers: Frozen.
    """

    def __init__(self, student: Pyramid, teachers: Sequence[Pyramid]) -> None:
        super().__init__()
        self.student = student
        # Not registered: teachers are neither trained nor stored.
        self._teachers = [teacher.requires_grad_(False).eval() for teacher in teachers]
        self.pairs = [
            (t, level, at) for t, teacher in enumerate(teachers) for level, at in enumerate(_partners(teacher, student))
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
            maps = [teacher.raw(self._suited(images, teacher)) for teacher in self._teachers]
        return [maps[t][level] for t, level, _ in self.pairs]

    def _suited(self, images: torch.Tensor, teacher: Pyramid) -> torch.Tensor:
        """Scaled, if a ViT's patches do not divide the crops, so that its grid is the student's deepest one."""
        height, width = images.shape[2:]
        is_vit = len(set(teacher.all_strides)) == 1
        if not is_vit or (height % teacher.multiple == 0 and width % teacher.multiple == 0):
            return images
        deepest = max(self.student.strides)
        size = (height // deepest * teacher.multiple, width // deepest * teacher.multiple)
        return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)

    def measure(self, batches: Sequence[torch.Tensor]) -> None:
        """Mean and standard deviation of every teacher channel, for the standardization."""
        maps = [self.targets(batch) for batch in batches]
        for n in range(len(self.pairs)):
            features = torch.cat([m[n].float().permute(1, 0, 2, 3).flatten(1) for m in maps], 1)
            getattr(self, f"mean{n}").copy_(features.mean(1))
            getattr(self, f"deviation{n}").copy_(features.std(1).clamp_min(1e-4))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Mean squared error of each regression; 1 is what a constant reaches."""
        targets = self.targets(images)
        features = self.student.raw(images)
        losses = []
        for n, (head, target) in enumerate(zip(self.heads, targets, strict=True)):
            predicted = head(features[self.pairs[n][2]]).float()
            wanted = (target.float() - self._column(f"mean{n}")) / self._column(f"deviation{n}")
            if predicted.shape[2:] != wanted.shape[2:]:
                predicted = F.interpolate(predicted, wanted.shape[2:], mode="bilinear", align_corners=False)
            losses.append(F.mse_loss(predicted, wanted))
        return losses

    def _column(self, name: str) -> torch.Tensor:
        return getattr(self, name)[None, :, None, None]


def distill(
    recipe: DistillationRecipe,
    output: str | Path,
    *,
    device: str | None = None,
    restart: bool = False,
    progress: Progress | None = None,
) -> Path | None:
    """Distill a student from its teachers; goes on where a killed run stopped.

    Args:
        recipe: What to do.
        output: Folder of the run; receives the recipe, the log, the checkpoint and `backbone.safetensors`.
        device: `cpu` or `cuda`; None takes a GPU if there is one. Several processes through `torchrun`.
        restart: Throw away a run that is there.
        progress: Called with (`distill`, steps done, steps in all).

    Returns:
        `backbone.safetensors`: the student's tensors in timm's features_only names, for `weights=` and `init=`;
        None in all processes of `torchrun` but the first.

    Raises:
        TrainingError: Data, recipe or machine do not allow it.
        WeightsError: A teacher's weights cannot be had, or the student has not the three stages.
    """
    with workers(device) as crew, memory_advice(recipe.batch // recipe.accumulate, recipe.size):
        torch.manual_seed(recipe.seed)
        teachers = [
            load_pyramid(name, None if file == "bundled" else file, recipe.teacher_stages or stages_at(name))
            for name, file in zip(recipe.teachers, recipe.teacher_weights, strict=True)
        ]
        student = Pyramid(recipe.student, three_stages(recipe.student))
        if recipe.student_weights is not None:
            student.load_weights(read_state_dict(recipe.student_weights))
        model = Distiller(student, teachers).to(crew.device)
        for teacher in teachers:
            teacher.to(crew.device, memory_format=torch.channels_last)
        with crew.first_goes_first():
            run = RunFolder(output, recipe, restart=restart and crew.is_first)
        crops = _Crops(recipe, crew)
        _fit(recipe, model, run, crops, crew, progress)
        path = run.folder / "backbone.safetensors"
        if not crew.is_first:
            return None
        student.save_weights(path)
        return path


def described(recipe: DistillationRecipe) -> tuple[dict[str, Any], ...]:
    """Names and counts of what a distillation saw, for the card."""
    data: list[dict[str, Any]] = []
    for folder in recipe.folders:
        if folder in (GENERATED, COLLAGES):
            from fewshot_ad.training.parts import CATEGORIES

            count = recipe.generated * len(CATEGORIES)
            data.append({"name": f"generated {folder}", "images": count, "license": "Apache-2.0"})
            continue
        for category in find_categories([folder]):
            data.append({"name": category.name, "images": len(category.files), "license": "not stated"})
    return tuple(data)


class _Crops:
    """Batches of crops by step number."""

    def __init__(self, recipe: DistillationRecipe, crew: Workers) -> None:
        self._recipe, self._crew = recipe, crew
        self._store = ImageStore(recipe.short_side)
        self._pictures: list[Path | Uint8Array] = []
        folders = [f for f in recipe.folders if f not in (GENERATED, COLLAGES)]
        if folders:
            categories, _ = readable(find_categories(folders), self._store)
            self._pictures += [path for category in categories for path in category.files]
        if {GENERATED, COLLAGES} & set(recipe.folders):
            from fewshot_ad.training.collage import collage
            from fewshot_ad.training.parts import CATEGORIES, render

            # Every picture another product: a student wants variety, not pairs.
            parts = [
                render(name, recipe.seed, recipe.short_side, variant=n)
                for name in CATEGORIES
                for n in range(recipe.generated)
            ]
            if GENERATED in recipe.folders:
                self._pictures += parts
            if COLLAGES in recipe.folders:
                self._pictures += [
                    collage(parts, recipe.seed * 1_000_003 + n, recipe.short_side) for n in range(len(parts))
                ]
        self._jitter = PhotometricJitter()

    def __len__(self) -> int:
        return len(self._pictures)

    def _read(self, picture: Path | Uint8Array) -> Uint8Array:
        return self._store.read(picture) if isinstance(picture, Path) else picture

    def pixels(self, step: int) -> torch.Tensor:
        """(N, 3, size, size) float32 in 0..1: this process's share of a step's batch."""
        recipe, crew = self._recipe, self._crew
        share = crew.share(recipe.batch)
        rng = np.random.default_rng([recipe.seed, step, crew.rank])
        chosen = rng.integers(len(self._pictures), size=share)
        crops = [random_crop(self._read(self._pictures[i]), recipe.size, recipe.scales, rng) for i in chosen]
        batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        return self._jitter(batch, int(rng.integers(2**31)))


def _fit(
    recipe: DistillationRecipe,
    model: Distiller,
    run: RunFolder,
    crops: _Crops,
    crew: Workers,
    progress: Progress | None,
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    first = run.resume(model, optimizer)
    device = crew.device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
    model.to(memory_format=torch.channels_last)
    if first == 0:
        with autocast:
            model.measure([crops.pixels(recipe.steps + 1 + n).to(device) for n in range(STATISTICS_BATCHES)])
    elif crew.is_first:
        run.forget_after(first)
        log.info("going on at step %d of %d", first, recipe.steps)
    model.train()
    clock, sums, since = Clock(first, recipe.steps), torch.zeros(len(model.pairs)), first
    start = time.monotonic()
    with ThreadPoolExecutor(1) as loader:
        coming = loader.submit(crops.pixels, first)
        for step in range(first, recipe.steps):
            batch = coming.result().to(device, memory_format=torch.channels_last)
            coming = loader.submit(crops.pixels, step + 1)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * one_cosine(step, recipe.steps, recipe.warmup)
            optimizer.zero_grad(set_to_none=True)
            for part in batch.chunk(recipe.accumulate):
                with autocast:
                    losses = model(part)
                (sum(losses) / len(losses) / recipe.accumulate).backward()
                sums += torch.stack(losses).detach().cpu() / recipe.accumulate
            crew.mean_gradients(model)
            optimizer.step()
            done = step + 1
            if progress is not None and crew.is_first:
                progress("distill", done, recipe.steps)
            if done % recipe.checkpoint_every == 0 or done == recipe.steps:
                mean = sums / (done - since)
                if not torch.isfinite(mean).all():
                    raise TrainingError(
                        f"the loss is no longer a number at step {done}. Lower learning_rate and use --restart."
                    )
                if crew.is_first:
                    run.save(done, model, optimizer)
                    run.log(
                        {
                            "step": done,
                            "loss": round(float(mean.mean()), 5),
                            "losses": [round(float(v), 5) for v in mean],
                            "learning_rate": optimizer.param_groups[0]["lr"],
                            "crops_per_s": round((done - since) * recipe.batch / (time.monotonic() - start), 1),
                            "eta_s": round(clock.eta_s(done)),
                        }
                    )
                sums.zero_()
                since, start = done, time.monotonic()


def one_cosine(step: int, steps: int, warmup: int = 0) -> float:
    """Factor of the learning rate: linear warm-up, then one half cosine from 1 to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
