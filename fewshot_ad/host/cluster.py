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
# How often what pieces tell is looked at, in seconds.
LOOK_S = 2.0
# How long the process that passes it on may take to start, on a busy machine, and to answer.
START_S, ANSWER_S = 60.0, 20.0


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

    def each(
        self,
        work: Callable[..., Result],
        pieces: Sequence[Piece],
        observe: Callable[[Piece, tuple[Any, ...]], None] | None = None,
    ) -> Iterator[tuple[Piece, Result | Lost]]:
        """Do every piece, and give what came of it as soon as it is done.

        Args:
            work: Does a piece, in another process: `work(piece)`, or, with `observe`, `work(piece, say)`.
            pieces: What it is called with.
            observe: Called, here, with a piece and what its work told `say` meanwhile; what is told while the process
                that passes it on is lost with its node is lost, too.

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
            watch = _Watch(ray, pieces, observe)
            left = iter(enumerate(pieces))
            while True:
                for number, piece in islice(left, SUBMITTED - len(waiting)):
                    waiting[task.remote(work, piece, watch.board, number)] = piece
                if not waiting:
                    return
                ready = watch.until_one_is_ready(list(waiting))
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


class _Board:
    """Where the processes of pieces leave what they have to tell, until it is taken."""

    def __init__(self) -> None:
        self._messages: list[tuple[int, tuple[Any, ...]]] = []

    def say(self, number: int, message: tuple[Any, ...]) -> None:
        """Leave a message of a piece."""
        self._messages.append((number, message))

    def take(self) -> list[tuple[int, tuple[Any, ...]]]:
        """All that was left since the last time."""
        messages, self._messages = self._messages, []
        return messages


class _Watch:
    """What pieces tell while they are worked on, and who is to hear it.

    Attributes:
        board: Where it is left; None where nobody is to hear it.
    """

    def __init__(self, ray: Any, pieces: Sequence[Any], observe: Callable[[Any, tuple[Any, ...]], None] | None) -> None:
        self._ray, self._pieces, self._observe, self.board = ray, pieces, observe, None
        if observe is not None:
            self.board = ray.remote(num_cpus=0)(_Board).remote()
            # It is there before anybody has to tell something.
            self._pass_on(START_S)

    def until_one_is_ready(self, references: list[Any]) -> Any:
        """Wait for one of the pieces, and pass on what all tell meanwhile."""
        while True:
            ready, _ = self._ray.wait(references, num_returns=1, timeout=None if self.board is None else LOOK_S)
            self._pass_on(ANSWER_S)
            if ready:
                return ready[0]

    def _pass_on(self, timeout_s: float) -> None:
        if self.board is None or self._observe is None:
            return
        try:
            told = self._ray.get(self.board.take.remote(), timeout=timeout_s)
        except self._ray.exceptions.RayError:
            # Nowhere to be started, or lost with its node: the work goes on unseen.
            self.board = None
            return
        for number, message in told:
            self._observe(self._pieces[number], message)


def _call(work: Callable[..., Result], piece: Piece, board: Any, number: int) -> Result:
    # Ray wants a function of a module; what is called may be a partial one.
    if board is None:
        return work(piece)
    import ray

    # Waited for, since this process may end right after; not for ever, since the board may be lost.
    return work(piece, lambda *message: ray.wait([board.say.remote(number, message)], timeout=LOOK_S))


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
