"""Run a plan's jobs on a Ray cluster (extra `ray`)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from fewshot_ad.arrays import Progress
from fewshot_ad.benchmark.job import Outcome, failure
from fewshot_ad.benchmark.plan import Job
from fewshot_ad.benchmark.run import Observer, Runner, attempt, limit_threads, now_and_then
from fewshot_ad.host.cluster import Lost, RayPool
from fewshot_ad.host.cores import pin_apart
from fewshot_ad.zoo.components.curves import Curves


def on_ray(
    address: str | None = None,
    cpus: int = 1,
    memory_mb: int | None = None,
    gpus: float = 0.0,
    retries: int = 3,
    curves: Curves | None = None,
    observe: Observer | None = None,
) -> Runner:
    """A runner on Ray.

    The datasets must lie at the same paths on all nodes. A job whose worker or node is lost runs again elsewhere; its
    result is appended once, by this process, whichever attempt gave it. On Linux each job keeps to `cpus` processors of
    its node that no other job has; elsewhere `cpus` limits OpenCV and torch, but not OpenVINO.

    Args:
        address: Of an existing cluster, as `ray.init` takes it (`auto`, `ray://host:10001`). None starts a local one
            for as long as the run takes, whatever else runs on this machine or `RAY_ADDRESS` says; where this process
            is connected to Ray already, None and `auto` take that cluster.
        cpus: Processors per job.
        memory_mb: Memory per job, in megabytes; None leaves it to Ray.
        gpus: Graphics processors per job.
        retries: How often each job is tried again after the loss of its worker.
        curves: Where training curves go, at the same path on all nodes; None = nowhere.
        observe: See `run.Observer`.

    Raises:
        ClusterError: Ray is not installed. The runner raises it where there is no cluster at that address, where
            this process is connected to another one, or where no node has what a job asks for.
    """
    pool = RayPool(address, cpus, memory_mb, gpus, retries)

    def runner(jobs: Sequence[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        told = None if observe is None else lambda job, message: observe(job, *message)
        for job, got in pool.each(functools.partial(_work, cpus=cpus, curves=curves), jobs, told):
            yield job, failure(job, got.reason) if isinstance(got, Lost) else got

    return runner


def _work(job: Job, say: Progress | None = None, *, cpus: int, curves: Curves | None) -> list[Outcome]:
    limit_threads(cpus)
    with pin_apart(cpus):
        return attempt(job, curves, None if say is None else now_and_then(say))
