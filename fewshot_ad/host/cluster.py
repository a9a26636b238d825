"""Pieces of work on a Ray cluster, or on all processors of this computer (extra `ray`)."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from fewshot_ad.errors import ClusterError
from fewshot_ad.host.runtimes import environment

Piece = TypeVar("Piece")
Result = TypeVar("Result")

# Pieces that Ray knows of at a time: more than clusters have processors, few enough to look through at every result.
SUBMITTED = 1000


class Lost(NamedTuple):
    """Why a piece of work gave nothing.

    Attributes:
        reason: In one line.
    """

    reason: str


class RayPool:
    """Pieces of work on a Ray cluster.

    Args:
        address: Of an existing cluster, as `ray.init` takes it (`auto`, `ray://host:10001`); None starts a local one
            for as long as the work takes.
        cpus: Processors for each piece.
        memory_mb: Memory for each; None leaves it to Ray.
        gpus: Graphics processors for each.
        retries: How often each is tried again after the loss of its worker.
        pieces_per_process: How many a process does before another one takes its place: 1 where what one leaves behind
            must not reach the next; 0 for no end.

    Raises:
        ClusterError: Ray is not installed.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus: int = 1,
        memory_mb: int | None = None,
        gpus: float = 0.0,
        retries: int = 3,
        pieces_per_process: int = 1,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise ClusterError("expected Ray for this runner: pip install 'fewshot-ad[ray]'.") from error
        self._ray, self._address, self._retries = ray, address, retries
        self._resources: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries}
        self._resources["max_calls"] = pieces_per_process
        if memory_mb is not None:
            self._resources["memory"] = memory_mb * 1_000_000
        self._asked = {"CPU": cpus, "GPU": gpus, "memory": self._resources.get("memory", 0)}

    def each(self, work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> Iterator[tuple[Piece, Result | Lost]]:
        """Do every piece, and give what came of it as soon as it is done.

        Args:
            work: Does a piece, in another process.
            pieces: What it is called with.

        Yields:
            A piece and its result, or why there is none.

        Raises:
            ClusterError: There is no cluster at that address, this process is connected to another one, or no node
                has what a piece asks for.
        """
        if not pieces:
            return
        ray = self._ray
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, self._address)
        elif self._address is not None and self._address != "auto":
            _expect_connected(ray, self._address)
        waiting: dict[Any, Piece] = {}
        try:
            _expect_node(ray, self._asked)
            task = ray.remote(**self._resources)(_call)
            left = iter(pieces)
            while True:
                waiting |= {task.remote(work, piece): piece for piece in islice(left, SUBMITTED - len(waiting))}
                if not waiting:
                    return
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                piece = waiting.pop(ready)
                try:
                    got: Result | Lost = ray.get(ready)
                except ray.exceptions.RayError as error:
                    got = Lost(reason(error, self._retries))
                yield piece, got
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()


def _call(work: Callable[[Piece], Result], piece: Piece) -> Result:
    # Ray wants a function of a module; what is called may be a partial one.
    return work(piece)


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
            raise ClusterError(
                f"expected a local Ray cluster to start, got: {_first_line(error)}. Give the address of a running one."
            ) from error
        raise ClusterError(
            f"expected a Ray cluster at {address!r} ({_first_line(error)}). Start one with `ray start --head`, or "
            "leave the address out for a local one."
        ) from error


def _expect_connected(ray: Any, address: str) -> None:
    # A connection through `ray://` does not tell the address of its cluster.
    there = getattr(ray.get_runtime_context(), "gcs_address", None)
    if there != address:
        raise ClusterError(
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
    raise ClusterError(
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
