"""anomalib's models as baselines: images in, scores and maps out, without a data set or a download."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import FewshotADError, ZooError
from fewshot_ad.zoo.anomalib.textures import write_textures
from fewshot_ad.zoo.components.tensors import (
    one_by_one,
    resized,
    seeded,
    standardize,
    tensor_bytes,
    to_batch,
)
from fewshot_ad.zoo.method import (
    Card,
    Family,
    Labeled,
    Original,
    Predictions,
    cards,
    require_fitted,
)
from fewshot_ad.zoo.stopping import Monitored, check_stopping

# For the cards; the names of the paper's backbone go in.
DISTILLED = (
    "resnet18 distilled on generated pictures (or lite0 with ImageNet's weights) in place of the paper's {}, which "
    "runs with backbone= and weights=FILE."
)
# Called with anomalib's module and the images, (N, 3, side, side) float32.
Hook: TypeAlias = Callable[[Any, torch.Tensor], None]


@dataclass(frozen=True)
class Schedule:
    """Length of a model's training, and the form of its input.

    Attributes:
        image_size: Side of its input, in pixels.
        epochs: Passes over the images at most, -1 for no limit.
        steps: Batches at most, -1 for no limit.
        batch_size: Images per batch, at most.
        standardized: Whether the input is standardized by ImageNet's mean and deviation; 0..1 otherwise.
        textures: Number of generated textures, in place of a data set that the method downloads.
        rate_per: Unit in which its learning-rate schedules count: anomalib mostly leaves that open.
    """

    image_size: int
    epochs: int = 1
    steps: int = -1
    batch_size: int = 32
    standardized: bool = True
    textures: int = 0
    rate_per: Literal["epoch", "step"] = "epoch"


@dataclass(eq=False)
class AnomalibMethod:
    """One of anomalib's models under the protocol of the zoo.

    Attributes:
        name: Name of the baseline.
        build: Builds anomalib's LightningModule, with random weights where it learns. Its argument is a folder that
            exists as long as the training, with the textures in `textures/`.
        schedule: Length of the training, and the form of the input.
        seed: Seed of the weights, the order of the images and the random numbers of the training.
        prepare: Called with the module and the (N, 3, side, side) float32 images before training.
        finish: Called with the same arguments after training.
        restructure: Called with the module when a stored model is to fill it: puts in place what `finish` did.
        zero_shot: Whether it also judges without having seen any image.
        numbers: Attributes of the module's model that training sets and that are no tensors.

    Raises:
        ZooError: anomalib is not installed, or a number of the schedule makes no sense.
    """

    name: str
    build: Callable[[Path], Any]
    schedule: Schedule
    seed: int
    prepare: Hook | None = None
    finish: Hook | None = None
    restructure: Callable[[Any], None] | None = None
    zero_shot: bool = False
    numbers: tuple[str, ...] = ()
    _device: str = field(default="cpu", init=False)
    _precision: str = field(default="f32", init=False)
    _patience: int | None = field(default=None, init=False)
    _validation: float = field(default=0.0, init=False)
    _monitor: Monitored = field(default="loss", init=False)
    _model: torch.nn.Module | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if importlib.util.find_spec("anomalib") is None:
            raise ZooError(f"{self.name} runs anomalib's code, which is not installed: pip install 'fewshot-ad[zoo]'.")
        schedule = self.schedule
        length = ("epochs", schedule.epochs) if schedule.steps == -1 else ("steps", schedule.steps)
        for option, value in (("image_size", schedule.image_size), ("batch_size", schedule.batch_size), length):
            if value < 1:
                raise ZooError(f"{self.name}: expected {option} of at least 1, got {value}.")

    def run_on(self, device: str, precision: str) -> None:
        """Fit and predict on a device, in a precision, see `placement`."""
        self._device, self._precision = device, precision

    def stop_early(self, patience: int | None, validation: float, monitor: Monitored) -> None:
        """Stop training when a figure gets no better, see `running_options`.

        Raises:
            ZooError: A number is out of range, or one asks for the other.
        """
        told = {"patience": patience, "validation": validation, "monitor": monitor}
        check_stopping(self.name, cards()[self.name].monitors, told)
        self._patience, self._validation, self._monitor = patience, validation, monitor

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Learn from images of good parts; see `Method.fit`."""
        schedule = self.schedule
        if self.zero_shot and not len(normal):
            self._model = self.skeleton()["_model"].eval().requires_grad_(False).to(self._device)
            return
        images = self._support(normal)
        report = _audible(progress) if progress else None
        with quiet(), _all_seeded(self.seed), tempfile.TemporaryDirectory() as temporary:
            from fewshot_ad.zoo.anomalib.runtime.training import Shots, train

            folder = Path(temporary)
            if schedule.textures:
                write_textures(folder / "textures", schedule.textures, schedule.image_size, self.seed)
            with self._explained():
                module = self.build(folder).to(self._device)
                if self.prepare:
                    self.prepare(module, images.to(self._device))
                held_out = self._held_out(len(images))
                trained_on = images[[i for i in range(len(images)) if i not in held_out]]
                shots = Shots(trained_on, min(schedule.batch_size, len(trained_on)), self.seed)
                train(
                    module,
                    shots,
                    schedule.epochs,
                    schedule.steps,
                    self.seed,
                    folder,
                    report,
                    schedule.rate_per,
                    device=self._device,
                    precision=self._precision,
                    callbacks=self._callbacks(shots, images[held_out], [normal[i] for i in held_out]),
                )
                self._model = module.model.eval().requires_grad_(False)
                if self.finish:
                    self.finish(module, images.to(self._device))

    def _held_out(self, total: int) -> list[int]:
        """Which of the images tell when to stop, evenly spaced.

        Raises:
            ZooError: There are too few for both.
        """
        count = round(self._validation * total)
        if self._validation > 0 and not 0 < count < total:
            raise ZooError(
                f"{self.name}: expected images enough to hold {self._validation:g} of them out, got {total}. Give "
                "more, or leave validation out."
            )
        return sorted({int((i + 0.5) * total / count) for i in range(count)})

    def _callbacks(self, shots: Any, held_out: torch.Tensor, pixels: Sequence[Uint8Array]) -> list[Any]:
        """What watches a training.

        Args:
            shots: Its batches.
            held_out: (n, 3, side, side) float32, the images that tell when to stop, in the form of the input.
            pixels: The same as they were given.
        """
        from fewshot_ad.zoo.anomalib.runtime.room import Room

        callbacks: list[Any] = [Room(self.name)]
        if self._patience is not None:
            from fewshot_ad.zoo.anomalib.runtime.patience import DrawnDefects, HeldOutLoss, Patience

            watch: HeldOutLoss | DrawnDefects | None = None
            if self._monitor != "loss":
                watch = DrawnDefects(self._monitor, pixels, self._judge, self.seed)
            elif len(held_out):
                watch = HeldOutLoss(shots.batch_of(held_out.to(self._device)))
            callbacks.append(Patience(self.name, self._patience, watch))
        return callbacks

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score images; see `Method.predict`."""
        model = require_fitted(self._model, self.name)
        autocast = torch.autocast(torch.device(self._device).type, torch.bfloat16, enabled=self._precision == "bf16")
        with quiet(), _all_seeded(self.seed), autocast:
            predictions = one_by_one(images, lambda image: self._judge(model, image))
        if not np.isfinite(predictions.scores).all():
            raise ZooError(
                f"{self.name}: expected finite scores, got {predictions.scores.tolist()[:3]}: anomalib's model of so "
                "few images has no meaning, or its training diverged. Fit it on more images."
            )
        return predictions

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        with quiet(), _all_seeded(self.seed), tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if self.schedule.textures:
                write_textures(folder / "textures", 1, self.schedule.image_size, self.seed)
            module = self.build(folder)
            if self.restructure:
                self.restructure(module)
        return {"_model": module.model, "_numbers": None}

    @property
    def _numbers(self) -> dict[str, int]:
        """The numbers that are set by training and are no tensors."""
        return {name: getattr(require_fitted(self._model, self.name), name) for name in self.numbers}

    @_numbers.setter
    def _numbers(self, values: Mapping[str, int]) -> None:
        for name in self.numbers:
            setattr(self._model, name, values[name])

    def model_bytes(self) -> int:
        """Bytes of the model's parameters and buffers."""
        return tensor_bytes(require_fitted(self._model, self.name))

    def _support(self, normal: Sequence[Uint8Array]) -> torch.Tensor:
        """The images of the fit in the form of the model's input."""
        return self._input(resized(normal, self.schedule.image_size).float() / 255)

    def _judge(self, model: torch.nn.Module, image: Uint8Array) -> tuple[float, torch.Tensor | None]:
        output = model(self._input(to_batch([image], self.schedule.image_size)).to(self._device))
        heat = output.anomaly_map
        return float(output.pred_score.reshape(-1)[0]), None if heat is None else heat.reshape(heat.shape[-2:])

    def _input(self, batch: torch.Tensor) -> torch.Tensor:
        # Contiguous, because anomalib views tensors as if they were.
        return (standardize(batch) if self.schedule.standardized else batch).contiguous()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn anomalib's errors into one that says how to proceed."""
        try:
            yield
        except FewshotADError:
            raise
        except (ValueError, RuntimeError, KeyError, IndexError, NotImplementedError) as error:
            raise ZooError(
                f"{self.name}: anomalib cannot work with these images and settings ({error}). Keep to the "
                "settings that `options` lists, or give more images."
            ) from error


def card(
    name: str,
    title: str,
    paper: str,
    year: int,
    family: Family,
    weights: str,
    *,
    maps: bool = True,
    needs_internet: bool = True,
    trains: bool = True,
    published: Mapping[str, Any] | None = None,
    pretrained: str = "",
    at_hand: str = "distilled by this package",
    departs: tuple[str, ...] = (),
    zero_shot: bool = False,
    stops_early: bool = True,
    loss_tells: bool = True,
) -> Card:
    """The card of one of anomalib's models.

    The arguments are those of `Card`, the name without `anomalib_`, and of `Original`, whose options are `published`.
    """
    return Card(
        name=f"anomalib_{name}",
        title=title,
        paper=paper,
        year=year,
        family=family,
        source="anomalib",
        maps=maps,
        needs_internet=needs_internet,
        trains=trains,
        weights=weights,
        zero_shot=zero_shot,
        stops_early=trains and stops_early,
        loss_tells=loss_tells,
        original=Original(options=published or {}, pretrained=pretrained, at_hand=at_hand, departs=departs),
    )


@contextlib.contextmanager
def _all_seeded(seed: int) -> Iterator[None]:
    """Seed torch's, numpy's and Python's random numbers, all of which anomalib uses, and restore them afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        with seeded(seed):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _audible(progress: Progress) -> Progress:
    """The caller's callback with the caller's output streams, inside `quiet`."""
    out, err = sys.stdout, sys.stderr

    def report(stage: str, done: int, total: int) -> None:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            progress(stage, done, total)

    return report


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No log, no warnings, no progress bars."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
