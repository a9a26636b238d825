"""Run a plan's jobs on a Ray cluster (extra `ray`)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fewshot_ad.benchmark.job import Outcome, failed
from fewshot_ad.benchmark.plan import Job
from fewshot_ad.benchmark.run import Runner, attempt, limit_threads
from fewshot_ad.errors import BenchmarkError


def on_ray(
    address: str | None = None,
    cpus: int = 1,
    memory_mb: int | None = None,
    gpus: float = 0.0,
    retries: int = 3,
) -> Runner:
    """A runner on Ray.

    The datasets must lie at the same paths on all nodes. A job whose worker or node is lost runs again elsewhere; its
    result is appended once, by this process, whichever attempt gave it. On Linux a job keeps to `cpus` processors of
    its node that no other job has; elsewhere `cpus` limits OpenCV and torch, but not OpenVINO.

    Args:
        address: Of an existing cluster, as `ray.init` takes it (`auto`, `ray://host:10001`); None starts a local one
            for as long as the run takes.
        cpus: Processors a job.
        memory_mb: Memory a job, in megabytes; None leaves it to Ray.
        gpus: Graphics processors a job.
        retries: How often a job is tried again after the loss of its worker.

    Raises:
        BenchmarkError: Ray is not installed, or there is no cluster at that address.
    """
    try:
        import ray
    except ImportError as error:
        raise BenchmarkError("expected Ray for this runner: pip install 'fewshot-ad[ray]'.") from error

    def runner(jobs: Sequence[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, address)
        resources: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries, "max_calls": 1}
        if memory_mb is not None:
            resources["memory"] = memory_mb * 1_000_000
        task = ray.remote(**resources)(_work)
        waiting = {task.remote(job, cpus): job for job in jobs}
        try:
            while waiting:
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                job = waiting.pop(ready)
                try:
                    outcomes = ray.get(ready)
                except ray.exceptions.RayError as error:
                    outcomes = failed(job, f"lost on Ray after {retries} retries ({str(error).splitlines()[0]}).")
                yield job, outcomes
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()

    return runner


def _connect(ray: Any, address: str | None) -> None:
    try:
        if address is not None and ":" in address:
            # Ray itself tries for minutes, and then ends the process.
            host, _, port = address.rpartition("://")[2].rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise BenchmarkError(
            f"expected a Ray cluster at {address!r} ({str(error).splitlines()[0]}). Start one with `ray start --head`, "
            "or leave the address out for a local one."
        ) from error


def _work(job: Job, cpus: int) -> list[Outcome]:
    limit_threads(cpus)
    with kept_apart(cpus):
        return attempt(job)


@contextlib.contextmanager
def kept_apart(cpus: int) -> Iterator[None]:
    """Keep this thread, and those it starts, to so many processors that no other job of this user has.

    OpenVINO takes all processors it may run on, whatever Ray thinks a job has. Where there are not as many free ones,
    or the system knows no such thing, nothing is changed.
    """
    with contextlib.ExitStack() as held:
        own = _lock_processors(cpus, held)
        if len(own) < cpus:
            held.close()
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, own)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def _lock_processors(cpus: int, held: contextlib.ExitStack) -> list[int]:
    """At most so many processors whose lock file no other holds; the locks end with `held` or with the process."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    import fcntl

    folder = Path(tempfile.gettempdir()) / f"fewshot-ad-processors-{os.getuid()}"
    own: list[int] = []
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for cpu in sorted(os.sched_getaffinity(0)):
            # Of this user alone, and no link to somewhere else.
            lock = os.open(folder / f"{cpu}.lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
            held.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            own.append(cpu)
            if len(own) == cpus:
                break
    except OSError:
        logging.getLogger(__name__).warning("%s: cannot be used, so jobs of this node share processors.", folder)
        own.clear()
    return own
