"""anomalib's EfficientAD, with a teacher from disk or one that is distilled here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.anomalib.adapter import AnomalibMethod, Schedule, card
from fewshot_ad.zoo.anomalib.bare import bare
from fewshot_ad.zoo.method import Card, Method, baseline


def _card(size: str) -> Card:
    made = card(
        f"efficient_ad_{size.lower()}",
        f"EfficientAD-{size}",
        "Batzner et al. 2024, EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies, WACV",
        2024,
        "teacher-student",
        "Its teacher is distilled here, in teacher_steps steps on generated pictures, from the shipped resnet18: the "
        "paper's learned WideResNet-101 on ImageNet in 60,000. teacher=FILE takes one that efficientad_cdo has written "
        f"with size={size}, which is distilled for longer, and teacher_weights=FILE anomalib's. Generated pictures are "
        "the penalty images instead of ImageNet's. Quantiles from the images it learned from, having no others.",
        published={"teacher_steps": 60_000},
        pretrained="distilled from WideResNet-101, ImageNet",
        at_hand="distilled here from resnet18, generated images",
        departs=("generated penalty images, not ImageNet's", "quantiles from the images it learned from"),
        stops_early=False,
    )
    return replace(made, original=replace(made.original, in_file={"teacher_steps": "teacher"}))


def _factory(size: str) -> Callable[..., Method]:
    name, width = f"anomalib_efficient_ad_{size.lower()}", {"S": "small", "M": "medium"}[size]

    def make(
        *,
        seed: int = 0,
        image_size: int = 256,
        teacher: str | None = None,
        teacher_weights: str | None = None,
        teacher_steps: int = 500,
        lr: float = 1e-4,
        weight_decay: float = 1e-5,
        pad_maps: bool = True,
        penalty_images: int = 256,
        steps: int = 70_000,
    ) -> Method:
        """EfficientAD. Source: Batzner et al. 2024, algorithm 1: 70,000 steps of one image at 256 pixels.

        Args:
            seed: Seed of everything random.
            image_size: Side in pixels, at least 256.
            teacher: File of a teacher that efficientad_cdo has written.
            teacher_weights: File of anomalib's teacher, or `random`.
            teacher_steps: Training steps of the teacher if it does not come from a file.
            lr: Learning rate, a tenth of it in the last twentieth of the steps.
            weight_decay: Adam's weight decay.
            pad_maps: Whether the maps, which lack the border, get one of zeros.
            penalty_images: Generated pictures that the student must not follow the teacher on.
            steps: Images it learns from, one at a time.
        """
        if penalty_images < 1:
            # Without one, anomalib would fetch a data set in their place.
            raise ZooError(f"{name}: expected penalty_images of at least 1, got {penalty_images}.")
        if image_size < 256:
            raise ZooError(f"{name}: expected an image_size of at least 256, for its autoencoder, got {image_size}.")
        _check_teacher(name, size, teacher, teacher_weights)

        def build(folder: Path) -> Any:
            from fewshot_ad.zoo.anomalib.runtime.pretraining import (
                OfflineEfficientAd,
                distill_teacher,
                load,
                take_teacher,
            )

            module = OfflineEfficientAd(folder / "textures", 384, width, lr, weight_decay, False, pad_maps, **bare())
            if teacher is not None:
                take_teacher(module.model.teacher, Path(teacher), size)
            elif teacher_weights is None:
                distill_teacher(module.model.teacher, teacher_steps, image_size, seed)
            elif teacher_weights != "random":
                load(module.model.teacher, teacher_weights)
            return module

        def finish(module: Any, images: torch.Tensor) -> None:
            from fewshot_ad.zoo.anomalib.runtime.training import Shots

            module.model.quantiles.update(module.map_norm_quantiles(Shots(images, 1, seed).train_dataloader()))

        schedule = Schedule(image_size, -1, steps, 1, standardized=False, textures=penalty_images, rate_per="step")
        return AnomalibMethod(name, build, schedule, seed, finish=finish)

    return make


def _check_teacher(name: str, size: str, teacher: str | None, teacher_weights: str | None) -> None:
    """Make sure that there is at most one teacher, and its file.

    Raises:
        ZooError: There are two.
        WeightsError: The file of one is missing.
    """
    if teacher is not None and teacher_weights is not None:
        raise ZooError(f"{name}: expected teacher or teacher_weights, got both. Leave one out.")
    if teacher is not None and not Path(teacher).is_file():
        raise WeightsError(
            f"{name}: expected teacher to be a file that efficientad_cdo has written, but {teacher} is none. Check "
            f"the path, or fit efficientad_cdo with size={size} and teacher={teacher} to make it."
        )


for _size in ("S", "M"):
    baseline(_card(_size))(_factory(_size))
