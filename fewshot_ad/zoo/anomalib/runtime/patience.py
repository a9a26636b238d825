"""Early stopping of anomalib's trainings: by good images that are held out, or by the loss of the training itself."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.curves import current_logger, draw


class Patience(Callback):
    """Stops when the loss has not fallen for some epochs, and takes back the weights of the best one.

    No label is looked at, and no image of the test: the loss is that of anomalib's training step, on held-out good
    images or, without such, the mean over the epoch's batches.

    Args:
        name: Name of the baseline, for messages.
        patience: Epochs without a lower loss after which it stops.
        held_out: A batch of good images in anomalib's form; None takes the training's own loss.
    """

    def __init__(self, name: str, patience: int, held_out: Any | None) -> None:
        self._name, self._patience, self._held_out = name, patience, held_out
        self._losses: list[float] = []
        self._best, self._waited = math.inf, 0
        self._weights: dict[str, torch.Tensor] | None = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep the loss of a batch."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor):
            self._losses.append(float(loss.detach()))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the epoch with the best one."""
        loss = self._of_held_out(pl_module) if self._held_out is not None else self._of_epoch()
        if not math.isfinite(loss):
            raise ZooError(
                f"{self._name}: expected a finite loss, by which it is told when to stop, got {loss}. Leave patience "
                "out, or take a lower learning rate where the method has one."
            )
        self._losses = []
        if current_logger() is not None:
            draw({"validation/loss": loss}, trainer.current_epoch)
        if loss < self._best:
            self._best, self._waited = loss, 0
            self._weights = {name: tensor.detach().clone() for name, tensor in pl_module.state_dict().items()}
        else:
            self._waited += 1
            trainer.should_stop = self._waited >= self._patience

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take back the best weights."""
        if self._weights is not None:
            pl_module.load_state_dict(self._weights)

    def _of_epoch(self) -> float:
        return sum(self._losses) / len(self._losses) if self._losses else math.nan

    def _of_held_out(self, module: Any) -> float:
        # In training mode, since some models give maps otherwise; the statistics that this changes are taken back.
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        device = next(module.parameters()).device
        gpus = [device] if device.type == "cuda" else []
        numpy_state, python_state = np.random.get_state(), random.getstate()
        module.log = _nothing
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=gpus):
                # The same random numbers for every epoch, so that losses compare.
                torch.manual_seed(0)
                np.random.seed(0)
                random.seed(0)
                outputs = module.training_step(self._held_out, 0)
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            del module.log
            module.load_state_dict(before)
        return float(outputs["loss"] if isinstance(outputs, Mapping) else outputs)


def _nothing(*_: Any, **__: Any) -> None:
    """In place of a module's `log`, which Lightning allows within its own steps alone."""
