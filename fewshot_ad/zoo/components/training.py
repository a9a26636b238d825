"""The fit loop of the methods that learn by gradient steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fewshot_ad.arrays import Progress
from fewshot_ad.zoo.components.curves import current_logger, draw
from fewshot_ad.zoo.components.memory import watched_step

Batch = TypeVar("Batch")


def train_epochs(
    loss: Callable[[Batch], torch.Tensor],
    batches: Callable[[], Iterable[Batch]],
    epochs: int,
    optimizers: Sequence[Optimizer],
    *,
    schedules: Sequence[LRScheduler] = (),
    progress: Progress | None = None,
    stage: str = "training",
) -> None:
    """Minimize a loss over passes through the data: one gradient step per batch.

    Args:
        loss: Called with one batch; returns a scalar with a gradient.
        batches: Called at the start of every epoch; returns its batches.
        epochs: Number of passes.
        optimizers: All of them step on every batch.
        schedules: Learning-rate schedules that step once per epoch.
        progress: Called as `progress(stage, epoch, epochs)` after each epoch, counted from 1.
        stage: Word for the training in `progress`, and before the names of its curves, the loss and the learning rate
            of each step.
    """
    step = 0
    for epoch in range(1, epochs + 1):
        for batch in batches():
            with watched_step(stage) if step == 0 else contextlib.nullcontext():
                value = loss(batch)
                descend(value, optimizers)
            if current_logger() is not None:
                draw(
                    {f"{stage}/loss": float(value.detach()), f"{stage}/rate": optimizers[0].param_groups[0]["lr"]}, step
                )
            step += 1
        for schedule in schedules:
            schedule.step()
        if progress is not None:
            progress(stage, epoch, epochs)


def train_steps(
    loss: Callable[[], torch.Tensor],
    steps: int,
    optimizers: Sequence[Optimizer],
    *,
    schedules: Sequence[LRScheduler] = (),
    progress: Progress | None = None,
    stage: str = "training",
) -> None:
    """Minimize a loss over a number of gradient steps; schedules and progress count steps.

    Args:
        loss: Draws one batch and returns a scalar with a gradient.
        steps: Number of steps.
        optimizers: As for `train_epochs`.
        schedules: Learning-rate schedules that step after every gradient step.
        progress: Called as `progress(stage, step, steps)` after each step, counted from 1.
        stage: Word for the training in `progress`.
    """
    # The same loop with one batch per epoch, which the loss draws itself.
    train_epochs(
        lambda _: loss(), lambda: (None,), steps, optimizers, schedules=schedules, progress=progress, stage=stage
    )


def descend(loss: torch.Tensor, optimizers: Sequence[Optimizer]) -> None:
    """One gradient step of every optimizer on a scalar loss."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Index batches without end: 0..count - 1 in random order, and again in a new order after each pass.

    Args:
        count: Number of items.
        batch_size: Items per batch; the last batch of a pass may be smaller.
        generator: Source of the orders; each is drawn when its first batch is.

    Yields:
        (b,) int64 indices.
    """
    while True:
        yield from torch.randperm(count, generator=generator).split(batch_size)
