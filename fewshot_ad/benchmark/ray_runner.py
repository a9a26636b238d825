"""Run a plan's jobs on a Ray cluster (extra `ray`)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot_ad.benchmark.job import Outcome, failure
from fewshot_ad.benchmark.plan import Job
from fewshot_ad.benchmark.run import Runner, attempt, limit_threads, pin_to
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.runtimes import environment
from fewshot_ad.zoo.components.curves import Curves


def on_ray(
    address: str | None = None,
    cpus: int = 1,
    memory_mb: int | None = None,
    gpus: float = 0.0,
    retries: int = 3,
    curves: Curves | None = None,
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

    Raises:
        BenchmarkError: Ray is not installed. The runner raises it where there is no cluster at that address, where
            this process is connected to another one, or where no node has what a job asks for.
    """
    try:
        import ray
    except ImportError as error:
        raise BenchmarkError("expected Ray for this runner: pip install 'fewshot-ad[ray]'.") from error

    def runner(jobs: Sequence[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        if not jobs:
            return
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, address)
        elif address is not None and address != "auto":
            _expect_connected(ray, address)
        resources: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries, "max_calls": 1}
        if memory_mb is not None:
            resources["memory"] = memory_mb * 1_000_000
        waiting: dict[Any, Job] = {}
        try:
            _expect_node(ray, {"CPU": cpus, "GPU": gpus, "memory": resources.get("memory", 0)})
            task = ray.remote(**resources)(_work)
            waiting |= {task.remote(job, cpus, curves): job for job in jobs}
            while waiting:
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                job = waiting.pop(ready)
                yield job, _outcomes(ray, job, ready, retries)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()

    return runner


def _outcomes(ray: Any, job: Job, reference: Any, retries: int) -> list[Outcome]:
    try:
        outcomes: list[Outcome] = ray.get(reference)
    except ray.exceptions.RayError as error:
        return failure(job, reason(error, retries))
    return outcomes


def _connect(ray: Any, address: str | None) -> None:
    try:
        if address is not None and ":" in address:
            # Ray itself tries for minutes, and then ends the process.
            host, _, port = address.rpartition("://")[2].rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        # A cluster that is started here would report its use to Ray's makers.
        with environment("RAY_USAGE_STATS_ENABLED", "0"):
            ray.init(
                # None would mean any cluster that can be found.
                address="local" if address is None else address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False,
            )
    except (OSError, ValueError, RuntimeError) as error:
        if address is None:
            raise BenchmarkError(
                f"expected a local Ray cluster to start, got: {_first_line(error)}. Give the address of a running one."
            ) from error
        raise BenchmarkError(
            f"expected a Ray cluster at {address!r} ({_first_line(error)}). Start one with `ray start --head`, or "
            "leave the address out for a local one."
        ) from error


def _expect_connected(ray: Any, address: str) -> None:
    # A connection through `ray://` does not tell the address of its cluster.
    there = getattr(ray.get_runtime_context(), "gcs_address", None)
    if there != address:
        raise BenchmarkError(
            f"expected the Ray cluster at {address!r}, but this process is connected to "
            f"{'another one' if there is None else repr(there)}. Call `ray.shutdown()` before, or leave the address "
            "out to use that connection."
        )


def _expect_node(ray: Any, asked: Mapping[str, float]) -> None:
    """Refuse jobs that fit on no present node, for which Ray would wait without end."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes):
        return
    offers = "; ".join(dict.fromkeys(_amounts(node) for node in nodes)) or "no node"
    raise BenchmarkError(
        f"expected a Ray node with {_amounts(asked)} for a job, got: {offers}. Ask for less, or add such a node to the "
        "cluster."
    )


def _amounts(resources: Mapping[str, float]) -> str:
    cpus, gpus, memory = (resources.get(name, 0) for name in ("CPU", "GPU", "memory"))
    parts = {f"{cpus:g} CPU": cpus, f"{gpus:g} GPU": gpus, f"{memory / 1e6:.0f} MB of memory": memory}
    return ", ".join(text for text, amount in parts.items() if amount) or "nothing"


def reason(error: Exception, retries: int) -> str:
    """Why a job gave nothing, in one line.

    Args:
        error: What `ray.get` raised.
        retries: How often the job was tried again.
    """
    from ray import exceptions

    lost = (
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
    )
    if isinstance(error, lost):
        return f"lost on Ray after {retries} retries ({_first_line(error)})."
    # Of an exception in the worker, Ray's own text starts with the name of the process.
    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    return f"{type(cause).__name__}: {_first_line(cause)}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _work(job: Job, cpus: int, curves: Curves | None) -> list[Outcome]:
    limit_threads(cpus)
    with pin_apart(cpus):
        return attempt(job, curves)


@contextlib.contextmanager
def pin_apart(cpus: int) -> Iterator[None]:
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
        with pin_to(own):
            yield


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
