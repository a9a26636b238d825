"""Refuses a fit whose features of all images would not fit into memory, as `components.memory.require_room` does."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from fewshot_ad.zoo.components.memory import require_room


class Room(Callback):
    """Looks, after the first batch, at what anomalib's model has kept of it.

    Models with a memory bank or Gaussians gather the features of each batch in a list, and join them in the end.

    Args:
        name: Name of the baseline, for the message.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See `require_room`.

        Raises:
            ZooError: The features of all images would take more than is there.
        """
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
