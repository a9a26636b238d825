"""Enroll a product from each folder of a parent folder, several at a time; what is there already is left alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fewshot_ad import arguments
from fewshot_ad.artifact import check_product_file
from fewshot_ad.errors import ArgumentError, ImageError
from fewshot_ad.failures import explanation
from fewshot_ad.host.cores import usable_cores
from fewshot_ad.images import list_images
from fewshot_ad.inspector import Inspector

# Where the good images of a product may lie in its folder, the first that has any.
GOOD = ("train/good", "good", ".")
SUFFIX = ".fsad"


class Enrolled(NamedTuple):
    """What became of one product.

    Attributes:
        name: Of its folder.
        status: `enrolled`; `there`: its file was there already; `failed`.
        message: Why it failed, or what was noticed.
        seconds: What it took.
    """

    name: str
    status: Literal["enrolled", "there", "failed"]
    message: str
    seconds: float


def enroll_each(
    parent: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    workers: int | None = None,
    force: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Enrolled]:
    """Enroll each sub-folder of a folder as a product of its name.

    The good images are those in `train/good`, in `good`, or in the sub-folder itself. Each product is a process's work,
    with one thread of its own; a product whose file is there is left alone, so that what was interrupted goes on. One
    that fails stops no other.

    Args:
        parent: The folder of folders.
        folder: Where the `.fsad` files go; it is made if it does not exist.
        workers: Processes at a time; None takes as many as there are processors.
        force: Whether products that are there are enrolled anew.
        settings: Further arguments of `Inspector.from_support`.

    Yields:
        What became of each, as it is done.

    Raises:
        ArgumentError: There is no such folder, or nothing to enroll in it.
    """
    parent, folder = (Path(arguments.file_name(path, "folder", ArgumentError)) for path in (parent, folder))
    if workers is not None:
        arguments.whole_number(workers, "workers", 1, 1024)
    if not parent.is_dir():
        raise ArgumentError(f"expected a folder with a sub-folder for each product, got {parent}, which is none.")
    out = folder.resolve()
    products = sorted(
        path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".") and path.resolve() != out
    )
    if not products:
        raise ArgumentError(f"expected a sub-folder for each product in {parent}, got none.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"{folder}: expected a folder for the products, got {error.strerror}.") from error
    waiting = []
    for product in products:
        output = folder / f"{product.name}{SUFFIX}"
        if output.exists() and not force:
            yield Enrolled(product.name, "there", f"{output} is there", 0.0)
        else:
            waiting.append((product, output))
    workers = min(workers or usable_cores(), max(1, len(waiting)))
    left = {product.name: (product, output, dict(settings or {}), force) for product, output in waiting}
    for one in _in_processes(left, workers):
        del left[one.name]
        yield one
    # Where a process was killed, for memory as a rule, those that waited go on one by one, and only its own one fails.
    for name, job in left.items():
        found = list(_in_processes({name: job}, 1))
        yield found[0] if found else Enrolled(name, "failed", "its process was killed: too little memory?", 0.0)


def _in_processes(jobs: Mapping[str, tuple[Path, Path, dict[str, Any], bool]], workers: int) -> Iterator[Enrolled]:
    """Enroll several at a time; it ends early where a process is killed."""
    # Of processes that start anew: a fork would lack the threads of native libraries.
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    try:
        for job in as_completed([pool.submit(_enroll, *arguments) for arguments in jobs.values()]):
            yield job.result()
    except BrokenProcessPool:
        return
    finally:
        # Ctrl-C, or a caller that has had enough: what has not begun does not begin.
        pool.shutdown(wait=True, cancel_futures=True)


def good_images(product: Path) -> Path:
    """The folder with the good images of a product.

    Raises:
        ImageError: There are none.
    """
    for part in GOOD:
        found = product / part
        try:
            if found.is_dir() and list_images(found):
                return found
        except ImageError:
            continue
    raise ImageError(f"{product}: expected good images in {', '.join(GOOD[:-1])} or in the folder itself, got none.")


def _enroll(product: Path, output: Path, settings: dict[str, Any], force: bool) -> Enrolled:
    """One product, in a process of its own."""
    start = time.perf_counter()
    try:
        check_product_file(output, protected=force)
        inspector = Inspector.from_support(good_images(product), product=product.name, threads=1, **settings)
        inspector.save(output, force=force)
    except Exception as error:  # a library's own, or too little memory: the others go on
        return Enrolled(product.name, "failed", explanation(error), time.perf_counter() - start)
    notes = "; ".join(inspector.enrollment.notes)
    return Enrolled(product.name, "enrolled", notes, time.perf_counter() - start)
