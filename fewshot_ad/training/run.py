"""The parts common to all trainings: processes, recipe files, run folder with checkpoints, schedule."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from fewshot_ad.documents.fields import check_dataclass
from fewshot_ad.documents.reading import Document
from fewshot_ad.documents.yaml_text import read_yaml
from fewshot_ad.errors import TrainingError
from fewshot_ad.storage import check_output, write_atomically, write_failure

RECIPE, LOG, CHECKPOINT = "recipe.yaml", "log.jsonl", "checkpoint.safetensors"
# Of a distillation.
WEIGHTS = "backbone.safetensors"
# Key of a parameter group whose learning rate stays as it is.
CONSTANT = "constant"
# Key of the factor by which the learning rate of a parameter group differs from that of the others.
FACTOR = "factor"
# Field names of recipes before version 0.2 -> their names today, so that runs of that time can be resumed.
FORMER_FIELDS = {
    "licences": "licenses",
    "init_licence": "init_license",
    "generated_photographs": "generated_images",
}
Recipe = TypeVar("Recipe")


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes of a run, one or as many as `torchrun` started, as seen from one of them.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        device: Device on which this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes the log and the files."""
        return self.rank == 0

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in the main process first, then in the others: for files that all of them use."""
        if self.size > 1 and not self.is_main:
            dist.barrier()
        yield
        if self.size > 1 and self.is_main:
            dist.barrier()

    def share(self, batch: int) -> int:
        """Number of items of a batch for this process.

        Raises:
            TrainingError: The batch cannot be divided evenly.
        """
        if batch % self.size:
            raise TrainingError(
                f"expected a batch that {self.size} processes can share evenly, got {batch}. "
                f"Make the batch a multiple of {self.size}."
            )
        return batch // self.size

    def average_gradients(self, module: nn.Module) -> None:
        """Average the gradients of all processes, in place."""
        if self.size == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


@contextmanager
def join_workers(device: str | None = None) -> Iterator[Workers]:
    """Join the other processes of `torchrun`, if there are any, for the duration of the block.

    Args:
        device: `cpu` or `cuda`; None = a GPU if there is one.

    Raises:
        TrainingError: There is no such device.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind not in ("cpu", "cuda"):
        raise TrainingError(f"expected device among ('cpu', 'cuda'), got {device!r}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "device='cuda' was asked for, but torch sees no GPU here. Leave it out to train on the CPU."
        )
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Workers(0, 1, torch.device(kind))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    own_device = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(own_device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), dist.get_world_size(), own_device)
    finally:
        dist.destroy_process_group()


def read_recipe(path: str | Path, recipe_class: type[Recipe]) -> Recipe:
    """Read a recipe from a YAML file.

    Args:
        path: The file.
        recipe_class: Dataclass of the recipe.

    Raises:
        TrainingError: The file cannot be read, or a field is unknown or has a wrong type or value.
    """
    document = read_yaml(Path(path), TrainingError, "a recipe in YAML")
    if isinstance(document.content, dict):
        renamed = {FORMER_FIELDS.get(name, name): value for name, value in document.content.items()}
        document = dataclasses.replace(document, content=renamed)
    return check_dataclass(recipe_class, document, TrainingError)


def recipe_from(fields: Mapping[str, Any], recipe_class: type[Recipe]) -> Recipe:
    """A recipe from its fields; lists become tuples.

    Raises:
        TrainingError: A field is unknown or has a wrong type or value; all such fields are named.
    """
    return check_dataclass(recipe_class, Document("the recipe", dict(fields)), TrainingError)


def write_recipe(path: Path, recipe: Any) -> None:
    """Write a recipe as YAML, with all fields, those at their default too."""
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()}
    write_atomically(path, yaml.safe_dump(fields, sort_keys=False).encode())


def check_run_folder(folder: str | Path, recipe_class: type[Any], inputs: Sequence[str | Path] = ()) -> None:
    """Make sure that a run can be written to a folder without a loss; nothing is changed on disk.

    Args:
        folder: The folder.
        recipe_class: Dataclass of the recipe; a run of another kind stays.
        inputs: Files that are read, none of which may be replaced.

    Raises:
        TrainingError: Files of the names that a run has are there and of no such run.
    """
    folder = Path(folder)

    def obstacle(path: Path) -> str | None:
        if not (folder / RECIPE).is_file():
            return f"expected a new folder or that of a run, got one without {RECIPE}. Choose another output folder."
        if path.name == RECIPE:
            read_recipe(path, recipe_class)
        return None

    for name in (RECIPE, LOG, CHECKPOINT, WEIGHTS):
        check_output(folder / name, inputs=inputs, obstacle=obstacle, error=TrainingError)


class RunFolder:
    """The folder of a run, with its recipe, log and last checkpoint.

    A run that was killed can be resumed from its last checkpoint, with the same result as without interruption.

    Args:
        folder: The folder; created if it does not exist.
        recipe: The recipe, a dataclass.
        restart: Whether to discard an existing run and start anew.

    Raises:
        TrainingError: The folder holds a run with another recipe, or files of these names that are of no run, or it
            cannot be written.
    """

    def __init__(self, folder: str | Path, recipe: Any, *, restart: bool = False) -> None:
        self.folder = Path(folder)
        check_run_folder(self.folder, type(recipe))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stored = self.folder / RECIPE
            if restart:
                # The recipe last: it vouches for the others.
                for name in (LOG, CHECKPOINT, RECIPE):
                    (self.folder / name).unlink(missing_ok=True)
            if stored.exists() and read_recipe(stored, type(recipe)) != recipe:
                raise TrainingError(
                    f"{self.folder} holds a run with another recipe ({RECIPE}). Give the same recipe to resume it, "
                    "restart=True (--restart) to discard it, or another output folder."
                )
            if not stored.exists():
                write_recipe(stored, recipe)
        except OSError as error:
            raise TrainingError(write_failure(self.folder, error)) from error

    @property
    def checkpoint(self) -> Path:
        """Path of the last checkpoint; the file may not exist yet."""
        return self.folder / CHECKPOINT

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to the log."""
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(dict(line)) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """The lines of the log so far."""
        path = self.folder / LOG
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def truncate_log(self, step: int) -> None:
        """Remove the log lines of all steps after a checkpoint, which a resumed run takes again."""
        lines = [line for line in self.lines() if line["step"] <= step]
        write_atomically(self.folder / LOG, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def save(self, step: int, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint; the previous one is replaced only when the new one is complete.

        Args:
            step: Number of steps done.
            module: The network.
            optimizer: Its optimizer.

        Raises:
            TrainingError: The checkpoint cannot be written; the previous one still exists.
        """
        tensors = {f"module.{k}": v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
        try:
            write_atomically(self.checkpoint, save(tensors, metadata={"step": str(step)}))
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{self.checkpoint}: the checkpoint of step {step} cannot be written ({error}). Free some space and "
                "run the same command again: it resumes from the last complete checkpoint."
            ) from error

    def resume(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the last checkpoint, if there is one.

        Args:
            module: The network; changed in place.
            optimizer: Its optimizer; changed in place.

        Returns:
            Number of steps done; 0 without a checkpoint.

        Raises:
            TrainingError: The checkpoint is damaged.
        """
        if not self.checkpoint.exists():
            return 0
        try:
            with safe_open(self.checkpoint, "pt") as file:
                step = int(file.metadata()["step"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            module.load_state_dict({k[7:]: v for k, v in tensors.items() if k.startswith("module.")})
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith("optimizer."):
                    _, index, name = key.split(".", 2)
                    state.setdefault(int(index), {})[name] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
            raise TrainingError(
                f"{self.checkpoint}: expected a checkpoint of this run, but it is damaged or of another model "
                f"({str(error).splitlines()[0]}). Start anew with restart=True (--restart)."
            ) from error
        return step


def one_cosine(step: int, steps: int, warmup: int = 0) -> float:
    """Factor of the learning rate at a step: linear warm-up, then half a cosine from 1 to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all parameter groups but those marked `CONSTANT`."""
    for group in optimizer.param_groups:
        if not group.get(CONSTANT):
            group["lr"] = learning_rate * group.get(FACTOR, 1.0)


class Clock:
    """Estimates the time left from the pace of the steps since this process started.

    Args:
        done: Number of steps done before.
        total: Number of steps in total.
    """

    def __init__(self, done: int, total: int) -> None:
        self._first, self._total, self._start = done, total, time.monotonic()

    def eta_s(self, done: int) -> float:
        """Estimated seconds until the last step; NaN before the first step of this process."""
        if done == self._first:
            return float("nan")
        return (time.monotonic() - self._start) / (done - self._first) * (self._total - done)


@contextmanager
def memory_advice(batch: int, size: int) -> Iterator[None]:
    """Turn running out of memory into an error that says what to change.

    Args:
        batch: Number of images that are computed at once.
        size: Side of the images in pixels.

    Raises:
        TrainingError: The block ran out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(_advice(batch, size)) from error
    except RuntimeError as error:
        # torch has no exception of its own for the CPU's memory.
        if "allocate memory" not in str(error):
            raise
        raise TrainingError(_advice(batch, size)) from error


def _advice(batch: int, size: int) -> str:
    return (
        f"out of memory with batches of {batch} at {size} x {size} pixels. Halve `batch` and double `accumulate` (the "
        "result is nearly the same), or lower the size."
    )
