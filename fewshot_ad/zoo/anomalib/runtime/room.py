"""Refuses a fit that would not fit into memory, as `components.memory` does."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from fewshot_ad.zoo.components.memory import require_room, watched_step


class Room(Callback):
    """Looks, during the first batch, at the memory that is left, and after it at what anomalib's model has kept of it.

    Models with a memory bank or Gaussians gather the features of each batch in a list, and join them in the end.

    Args:
        name: Name of the baseline, for the message.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._watched = contextlib.ExitStack()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """See `watched_step`."""
        if not batch_idx and not trainer.current_epoch:
            self._watched.enter_context(watched_step(self._name))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Look no longer."""
        self._watched.close()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See `require_room`.

        Raises:
            ZooError: The features of all images would take more than is there.
        """
        self._watched.close()
        if batch_idx:
            return
        kept = sum(_kept_bytes(value) for value in vars(pl_module.model).values() if isinstance(value, list))
        if kept:
            require_room(self._name, kept / len(batch.image), len(trainer.train_dataloader.dataset))  # type: ignore[union-attr]


def _kept_bytes(kept: Any) -> int:
    """Of a tensor, or of all tensors in a list, which may hold one list per stage."""
    if isinstance(kept, torch.Tensor):
        return kept.nbytes
    return sum(map(_kept_bytes, kept)) if isinstance(kept, list) else 0
