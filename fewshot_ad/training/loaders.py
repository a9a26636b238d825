"""Prepares the batches of a training while the steps before are computed: in a thread, or in processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from fewshot_ad.arguments import whole_number
from fewshot_ad.errors import FewshotADError, TrainingError
from fewshot_ad.host.cores import usable_cores
from fewshot_ad.training.run import Workers

Batch = TypeVar("Batch")
# Each process holds some batches ready, so that their memory grows with their number.
MOST_BY_DEFAULT = 16


def number_of_loaders(loaders: int | None, workers: Workers) -> int:
    """The number of processes that prepare the batches of this process.

    Args:
        loaders: As asked for; None = none on the CPU, whose cores train, and on a GPU one per further core, at most 16.
        workers: The processes that train, which share the cores.

    Raises:
        TrainingError: It is no whole number from 0 on, or this platform has no processes that share memory by a fork.
    """
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    if loaders is not None:
        number = whole_number(loaders, "loaders", 0, error=TrainingError)
        if number and not can_fork:
            raise TrainingError(f"expected loaders=0 on this platform, which cannot fork a process, got {number}.")
        return number
    if workers.device.type != "cuda" or not can_fork or multiprocessing.current_process().daemon:
        return 0
    return min(max(usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, 0), MOST_BY_DEFAULT)


def prefetch(load: Callable[[int], Batch], first: int, total: int, loaders: int = 0) -> Iterator[tuple[int, Batch]]:
    """Load the batches of steps while the steps before are computed.

    Args:
        load: Loads the batch of a step.
        first: First step.
        total: Number of steps in total.
        loaders: Number of processes that load; 0 = a second thread of this one.

    Yields:
        Number of the step and its batch.

    Raises:
        TrainingError: As for `in_processes`.
    """
    if loaders:
        yield from enumerate(in_processes(load, range(first, total), loaders), start=first)
        return
    with ThreadPoolExecutor(1) as loader:
        upcoming = loader.submit(load, first)
        for step in range(first, total):
            batch = upcoming.result()
            upcoming = loader.submit(load, step + 1)
            yield step, batch


def in_processes(load: Callable[[int], Batch], indices: Sequence[int], processes: int) -> Iterator[Batch]:
    """`load` of each index, in order, computed by processes.

    Args:
        load: Loads an item; must not use a GPU.
        indices: Its arguments.
        processes: Number of processes.

    Yields:
        The items.

    Raises:
        TrainingError: A process was killed, as happens where memory runs out.
    """
    items = DataLoader(
        _Items(load, indices),
        batch_size=None,
        num_workers=processes,
        collate_fn=_as_it_is,
        worker_init_fn=_without_threads,
        # Arrays that are held in memory are shared, not copied.
        multiprocessing_context="fork",
        # One of its own: the global one stays as it would be without processes.
        generator=torch.Generator(),
    )
    try:
        for item in items:
            if isinstance(item, _Failure):
                raise item.error from None
            yield item
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise TrainingError(
            f"a process that prepares images was killed ({str(error).splitlines()[0]}). Lower loaders (--loaders, 0 "
            "for none), or give them more memory: a container more shared memory (docker run --shm-size 8g)."
        ) from error


def made(make: Callable[[int], Batch], count: int, loaders: int) -> list[Batch]:
    """`make` of 0 to count - 1, computed by processes if there are any. Errors as for `in_processes`."""
    return list(in_processes(make, range(count), loaders)) if loaders else [make(index) for index in range(count)]


@dataclass(frozen=True)
class _Failure:
    """What went wrong in a process, as a value: torch would make one long text of it and its traceback."""

    error: FewshotADError


class _Items(Dataset[Any]):
    """`load` of each index, as a dataset of torch."""

    def __init__(self, load: Callable[[int], Any], indices: Sequence[int]) -> None:
        self._load, self._indices = load, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> Any:
        try:
            return self._load(self._indices[position])
        except FewshotADError as error:
            return _Failure(error)


def _as_it_is(item: Any) -> Any:
    return item


def _without_threads(_: int) -> None:
    # OpenCV's threads do not survive a fork: without this a process can wait for them forever.
    cv2.setNumThreads(0)
