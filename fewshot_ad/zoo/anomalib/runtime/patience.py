"""Early stopping of anomalib's trainings: by good images that are held out, or by the loss of the training itself."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.enrollment.defects import random_defect
from fewshot_ad.errors import ZooError
from fewshot_ad.metrics import auroc
from fewshot_ad.zoo.components.curves import current_logger, draw
from fewshot_ad.zoo.components.tensors import resized

# Copies of each held-out image with a drawn defect.
COPIES = 4
# Side in pixels of the maps of which `pixel_auroc` is taken, since it is asked for in every epoch.
MAP_SIDE = 128


class Watch(Protocol):
    """A figure by which a training is stopped; the lower the better."""

    @property
    def name(self) -> str:
        """What it is called."""

    def of(self, module: Any) -> float:
        """The figure of a module as it is now; its weights, and all random numbers, stay."""


class HeldOutLoss:
    """The loss of anomalib's training step on held-out good images.

    Args:
        batch: The images in anomalib's form.
    """

    name = "loss"

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def of(self, module: Any) -> float:
        """See `Watch.of`."""
        # In training mode, since some models give maps otherwise; the statistics that this changes are taken back.
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        module.log = _nothing
        try:
            with torch.no_grad(), _same_random_numbers(next(module.parameters()).device):
                outputs = module.training_step(self._batch, 0)
        finally:
            del module.log
            module.load_state_dict(before)
        return float(outputs["loss"] if isinstance(outputs, Mapping) else outputs)


class DrawnDefects:
    """One minus the AUROC of held-out good images against copies of them with drawn defects.

    Args:
        name: Of images, or of pixels.
        images: (H, W, 3) uint8 RGB each.
        judge: Gives score and map of an image by a model.
        seed: Of the defects.

    Raises:
        ZooError: They are no RGB images.
    """

    def __init__(
        self,
        name: Literal["image_auroc", "pixel_auroc"],
        images: Sequence[Uint8Array],
        judge: Callable[[torch.nn.Module, Uint8Array], tuple[float, torch.Tensor | None]],
        seed: int,
    ) -> None:
        if any(image.shape[2:] != (3,) for image in images):
            raise ZooError(f"expected RGB images with monitor={name}, which defects are drawn on, got depth with them.")
        self.name, self._judge = name, judge
        rng = np.random.default_rng(seed)
        self._images, self._masks = list(images), [np.zeros(image.shape[:2], bool) for image in images]
        for image in images:
            for _ in range(COPIES):
                drawn = random_defect(image, rng)
                self._images.append(drawn)
                self._masks.append((drawn != image).any(axis=2))

    def of(self, module: Any) -> float:
        """See `Watch.of`."""
        model, was_training = module.model, module.model.training
        model.eval()
        try:
            with torch.no_grad(), _same_random_numbers(next(model.parameters()).device):
                judged = [self._judge(model, image) for image in self._images]
        finally:
            model.train(was_training)
        if self.name == "image_auroc":
            return 1 - auroc([mask.any() for mask in self._masks], [score for score, _ in judged])
        masks = resized(
            [np.repeat(255 * mask[..., None].astype(np.uint8), 3, axis=2) for mask in self._masks], MAP_SIDE
        )
        maps = [
            torch.nn.functional.interpolate(heat[None, None].float(), (MAP_SIDE, MAP_SIDE), mode="area").ravel()
            for _, heat in judged
            if heat is not None
        ]
        return 1 - auroc((masks[:, 0] > 127).ravel().numpy(), torch.cat(maps).cpu().numpy())


class Patience(Callback):
    """Stops when a figure has not got better for some epochs, and takes back the weights of the best one.

    No label is looked at, and no image of the test.

    Args:
        name: Name of the baseline, for messages.
        patience: Epochs without a better figure after which it stops.
        watch: The figure; None takes the training's own loss, the mean over the epoch's batches.
    """

    def __init__(self, name: str, patience: int, watch: Watch | None) -> None:
        self._name, self._patience, self._watch = name, patience, watch
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
        figure = "loss" if self._watch is None else self._watch.name
        found = self._of_epoch() if self._watch is None else self._watch.of(pl_module)
        if not math.isfinite(found):
            raise ZooError(
                f"{self._name}: expected a finite {figure}, by which it is told when to stop, got {found}. Leave "
                "patience out, or take a lower learning rate where the method has one."
            )
        self._losses = []
        if current_logger() is not None:
            draw({f"validation/{figure}": found if figure == "loss" else 1 - found}, trainer.current_epoch)
        if found < self._best:
            self._best, self._waited = found, 0
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


@contextlib.contextmanager
def _same_random_numbers(device: torch.device) -> Iterator[None]:
    """The same random numbers for every epoch, so that figures compare; those of the training go on behind it."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            np.random.seed(0)
            random.seed(0)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _nothing(*_: Any, **__: Any) -> None:
    """In place of a module's `log`, which Lightning allows within its own steps alone."""
