"""A training run: its folder, its log, its checkpoints, and the processes that share it."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from fewshot_ad.artifact import write_atomically
from fewshot_ad.errors import TrainingError

RECIPE, LOG, CHECKPOINT = "recipe.yaml", "log.jsonl", "checkpoint.safetensors"
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes of a run: one, or as many as `torchrun` started.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the log and the files."""
        return self.rank == 0

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The first process runs the block alone, then the others do: for files that all of them look at."""
        if self.size > 1 and not self.is_first:
            dist.barrier()
        yield
        if self.size > 1 and self.is_first:
            dist.barrier()

    def share(self, batch: int) -> int:
        """This process's part of a batch.

        Raises:
            TrainingError: The batch cannot be dealt evenly.
        """
        if batch % self.size:
            raise TrainingError(
                f"expected a batch that {self.size} processes can share evenly, got {batch}. "
                f"Make the batch a multiple of {self.size}."
            )
        return batch // self.size

    def mean_gradients(self, module: nn.Module) -> None:
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
def workers(device: str | None = None) -> Iterator[Workers]:
    """Join the other processes of `torchrun`, if there are any.

    Args:
        device: `cpu` or `cuda`; None takes a GPU if there is one.

    Raises:
        TrainingError: A GPU was asked for where there is none.
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
    where = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), dist.get_world_size(), where)
    finally:
        dist.destroy_process_group()


# What fields of a recipe were called before version 0.2; runs of that time go on.
FORMER_FIELDS = {
    "licences": "licenses",
    "init_licence": "init_license",
    "generated_photographs": "generated_images",
    "grey_share": "gray_share",
}


def read_recipe(path: str | Path, kind: type[R]) -> R:
    """A recipe from YAML; unknown fields are refused.

    Raises:
        TrainingError: The file is not such a recipe.
    """
    try:
        fields = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f"{path}: expected a recipe in YAML, but it cannot be read ({error}).") from error
    if isinstance(fields, dict):
        fields = {FORMER_FIELDS.get(name, name): value for name, value in fields.items()}
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if not isinstance(fields, dict) or not set(fields) <= set(known):
        surplus = sorted(set(fields) - set(known)) if isinstance(fields, dict) else type(fields).__name__
        raise TrainingError(f"{path}: expected fields among {known}, got {surplus}. Correct the recipe.")
    return recipe_from(fields, kind)


def recipe_from(fields: Mapping[str, Any], kind: type[R]) -> R:
    """A recipe from its fields; lists become tuples.

    Raises:
        TrainingError: A field has a wrong type or value.
    """
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    except TypeError as error:
        raise TrainingError(f"the recipe does not fit: {error}.") from error


def write_recipe(path: Path, recipe: Any) -> None:
    """A recipe as YAML, complete with its defaults."""
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()}
    path.write_text(yaml.safe_dump(fields, sort_keys=False))


class RunFolder:
    """Recipe, log and the last checkpoint of a run, in a folder of its own.

    A run that was killed goes on from its last checkpoint; the result is the same as if it had never stopped.

    Args:
        folder: Made if it does not exist.
        recipe: The recipe, a dataclass.
        restart: Throw away what is there and begin anew.

    Raises:
        TrainingError: The folder holds a run with another recipe, or cannot be written.
    """

    def __init__(self, folder: str | Path, recipe: Any, *, restart: bool = False) -> None:
        self.folder = Path(folder)
        self._recipe = recipe
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stored = self.folder / RECIPE
            if restart:
                for name in (RECIPE, LOG, CHECKPOINT):
                    (self.folder / name).unlink(missing_ok=True)
            if stored.exists() and read_recipe(stored, type(recipe)) != recipe:
                raise TrainingError(
                    f"{self.folder} holds a run with another recipe ({RECIPE}). Give the same recipe to go on with it, "
                    "restart=True (--restart) to throw it away, or another output folder."
                )
            write_recipe(stored, recipe)
        except OSError as error:
            raise TrainingError(
                f"{self.folder}: expected a folder that can be written, got {error.strerror or error}. "
                "Choose another output folder, or free some space."
            ) from error

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint; it may not exist yet."""
        return self.folder / CHECKPOINT

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to the log."""
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(dict(line)) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        path = self.folder / LOG
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def forget_after(self, step: int) -> None:
        """Drop log lines of steps that a kill made undone."""
        kept = [line for line in self.lines() if line["step"] <= step]
        (self.folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in kept))

    def save(self, step: int, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint; the one before stays until the new one is complete.

        Raises:
            TrainingError: It cannot be written; the last one is still there.
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
                "run the same command again: it goes on from the last complete checkpoint."
            ) from error

    def resume(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the last checkpoint, if there is one.

        Returns:
            Number of steps that are done.

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
                f"({str(error).splitlines()[0]}). Begin anew with restart=True (--restart)."
            ) from error
        return step


class Clock:
    """Time left, from the pace of the steps since this process began."""

    def __init__(self, done: int, total: int) -> None:
        self._first, self._total, self._start = done, total, time.monotonic()

    def eta_s(self, done: int) -> float:
        """Seconds until the last step."""
        if done == self._first:
            return float("nan")
        return (time.monotonic() - self._start) / (done - self._first) * (self._total - done)


@contextmanager
def memory_advice(batch: int, size: int) -> Iterator[None]:
    """Turn out-of-memory into advice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(_advice(batch, size)) from error
    except RuntimeError as error:
        # torch's allocator for the CPU has no exception of its own.
        if "allocate memory" not in str(error):
            raise
        raise TrainingError(_advice(batch, size)) from error


def _advice(batch: int, size: int) -> str:
    return (
        f"out of memory with batches of {batch} at {size} x {size} pixels. Halve `batch` and double `accumulate` (the "
        "result is nearly the same), or lower the size."
    )
