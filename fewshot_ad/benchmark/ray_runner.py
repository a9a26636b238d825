"""Run a plan's jobs on a Ray cluster (extra `ray`)."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Sequence
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
    result is appended once, by this process, whichever attempt gave it. `cpus` limits OpenCV and torch; OpenVINO takes
    the node's processors all the same, so times compare only where a node has one job at a time.

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
    return attempt(job)
