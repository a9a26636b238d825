"""anomalib's own training of a model, on images that are in memory."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from anomalib.data import DepthBatch, ImageBatch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.optim.lr_scheduler import MultiStepLR, StepLR
from torch.utils.data import DataLoader

from fewshot_ad.arrays import Progress
from fewshot_ad.zoo.components.colored_points import CHANNELS
from fewshot_ad.zoo.components.curves import current_logger


@contextlib.contextmanager
def _signals_as_elsewhere() -> Iterator[None]:
    """What ends a training ends the program as it does elsewhere: Ctrl-C by KeyboardInterrupt, SIGTERM by itself.

    Lightning turns both into SystemExit, SIGTERM with code 0: who started the program would take it for done.
    """
    is_main = threading.current_thread() is threading.main_thread()
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if is_main else {}
    try:
        yield
    except SystemExit as error:
        for number, handler in former.items():
            signal.signal(number, handler)
        if isinstance(error, SIGTERMException) and former.get(signal.SIGTERM) == signal.SIG_DFL:
            signal.raise_signal(signal.SIGTERM)
        raise KeyboardInterrupt from None


class Shots(LightningDataModule):
    """The support set as anomalib's batches.

    Args:
        images: (N, 3, side, side) float32, in the form of the model's input; (N, 6, side, side) with positions.
        batch_size: Images per batch, at most.
        seed: Seed of the order.

    Attributes:
        train_batch_size: Read by anomalib's EfficientAD.
    """

    def __init__(self, images: torch.Tensor, batch_size: int, seed: int) -> None:
        super().__init__()
        self._images = images
        self._order = torch.Generator().manual_seed(seed)
        self.train_batch_size = batch_size

    def train_dataloader(self) -> DataLoader[ImageBatch | DepthBatch]:
        """Batches in random order. The last one may be smaller: a support set has no images to spare."""
        return DataLoader(
            range(len(self._images)),  # type: ignore[arg-type]
            batch_size=self.train_batch_size,
            shuffle=True,
            generator=self._order,
            collate_fn=self._batch,
        )

    def _batch(self, indices: list[int]) -> ImageBatch | DepthBatch:
        return self.batch_of(self._images[indices].clone())

    @staticmethod
    def batch_of(images: torch.Tensor) -> ImageBatch | DepthBatch:
        """Good images as one of anomalib's batches."""
        truth = {"gt_label": torch.zeros(len(images), dtype=torch.bool)}
        truth["gt_mask"] = torch.zeros(images[:, 0].shape, dtype=torch.bool)
        if images.shape[1] == CHANNELS:
            return DepthBatch(image=images[:, :3], depth_map=images[:, 3:], **truth)
        return ImageBatch(image=images, **truth)


class _Watch(Callback):
    """Seeds the training, and reports its progress.

    The first fit of a process imports much, some of which draws random numbers, so the seed is set again here.
    """

    def __init__(self, seed: int, progress: Progress | None, total: int) -> None:
        self._seed, self._progress, self._total, self._done = seed, progress, total, 0

    def on_train_start(self, *_: Any, **__: Any) -> None:
        random.seed(self._seed)
        np.random.seed(self._seed % 2**32)
        torch.manual_seed(self._seed)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self._done += 1
        if self._progress:
            self._progress("training", self._done, self._total)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        # Where it stopped early, nothing is left to do.
        if self._progress and self._done < self._total:
            self._progress("training", self._total, self._total)


class _Rates(Callback):
    """Makes the learning-rate schedules count in the unit that their numbers mean, epochs or batches.

    Lightning counts epochs by default, and expects a module that steps its optimizers itself to step its schedules,
    too. anomalib configures neither.
    """

    def __init__(self, per: Literal["epoch", "step"]) -> None:
        self._per = per

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        for config in trainer.lr_scheduler_configs:
            config.interval = self._per
            # anomalib computes fractions of the training, which may be 0 steps or no whole number.
            if isinstance(config.scheduler, StepLR):
                config.scheduler.step_size = max(1, config.scheduler.step_size)
            if isinstance(config.scheduler, MultiStepLR):
                config.scheduler.milestones = Counter(int(n) for n in config.scheduler.milestones.elements())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not pl_module.automatic_optimization:
            for config in trainer.lr_scheduler_configs:
                config.scheduler.step()


def train(
    module: LightningModule,
    shots: Shots,
    epochs: int,
    steps: int,
    seed: int,
    folder: Path,
    progress: Progress | None,
    rate_per: Literal["epoch", "step"] = "epoch",
    *,
    device: str = "cpu",
    precision: str = "f32",
    callbacks: Sequence[Callback] = (),
) -> None:
    """Run anomalib's training: its steps, optimizers, schedules and hooks, without validation.

    Args:
        module: One of anomalib's.
        shots: The support set.
        epochs: Passes at most; -1 for no limit.
        steps: Batches at most; -1 for no limit.
        seed: Seed of the training; the caller restores the state of the generators.
        folder: Folder in which Lightning may write.
        progress: Called as `progress("training", batches done, batches in all)`.
        rate_per: Unit in which the module's learning-rate schedules count.
        device: `cpu`, `cuda` or `cuda:N`; the module is there afterwards.
        precision: `f32`, or `bf16` for mixed precision.
        callbacks: Lightning's, further ones.
    """
    batches = len(shots.train_dataloader())
    total = min(n for n in (epochs * batches, steps) if n > 0)
    kind, _, number = device.partition(":")
    trainer = Trainer(
        accelerator=kind,
        devices=[int(number or 0)] if kind == "cuda" else 1,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        max_epochs=epochs,
        max_steps=steps,
        gradient_clip_val=module.trainer_arguments.get("gradient_clip_val"),
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=current_logger() or False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[_Watch(seed, progress, total), _Rates(rate_per), *callbacks],
    )
    with _signals_as_elsewhere():
        trainer.fit(module, datamodule=shots)
    # Lightning takes it back to the CPU.
    module.to(device)
