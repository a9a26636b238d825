"""OpenVINO graphs, compiled for each size of images that comes, and shared by all that run the same one."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.host.lifetime import ForkSafeLock, keep_in_children
from fewshot_ad.host.runtimes import import_openvino, signal_stack_kept

# A model compiled for one fixed input size is about a fifth faster than one for any size. A line has one camera, so a
# few sizes get their own; a stream of ever-changing sizes is served by the model for any size.
MAX_FIXED_SIZES = 8


class Compiled:
    """A compiled network and its one infer request, with the lock that goes with it.

    The request remembers where its last inputs lie, so they are kept until the next ones are set; each run sets all of
    them, whoever ran it before.
    """

    def __init__(self, request: Any) -> None:
        self.request = request
        self.lock = ForkSafeLock()
        self.inputs: list[Any] = []


class CompiledPool:
    """Compiled networks that several owners share, by what they were compiled for; gone with the last owner.

    Owners that share one run it one after the other, and one compiles at a time.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[Hashable, Compiled] = weakref.WeakValueDictionary()
        self._lock = ForkSafeLock()

    def get(self, key: Hashable, make: Callable[[], Compiled]) -> Compiled:
        """What was compiled for a key; made now if nobody has it."""
        with self._lock:
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = make()
        return known


class Requests:
    """A graph, compiled for each size of its first input that comes, and its infer requests.

    Args:
        graph: Makes the OpenVINO model, its first input of any size. A method is held weakly: its owner, which holds
            this, and this would hold each other, and with them 100 MB of compiled networks, until Python looks for
            circles.
        config: Of the compilation.
        inputs: What the other inputs of the graph always are.
        pool: What is compiled is shared with all others that have this pool and an equal key; None shares nothing.
        key: Says what the graph is, for the pool: graphs of equal keys differ in nothing but their other inputs.
    """

    def __init__(
        self,
        graph: Callable[[], Any],
        config: Mapping[str, object],
        inputs: Sequence[Float32Array] = (),
        pool: CompiledPool | None = None,
        key: Hashable = None,
    ) -> None:
        self._ov = import_openvino()
        self._graph = weakref.WeakMethod(graph) if inspect.ismethod(graph) else lambda: graph
        self._config = dict(config)
        self._inputs = [self._ov.Tensor(one, shared_memory=True) for one in inputs]
        self._pool, self._key = pool or CompiledPool(), key
        self._fixed: dict[tuple[int, ...], Compiled] = {}
        self._any_size: Compiled | None = None
        self._compilations = 0
        self._lock = ForkSafeLock()

    def _compile(self, shape: tuple[int, ...] | None) -> Compiled:
        graph = self._graph()
        if graph is None:
            raise ReferenceError("the owner of these requests is gone")
        model = graph()
        if shape is not None:
            model.reshape({model.inputs[0]: shape})
        with signal_stack_kept():
            compiled = self._ov.Core().compile_model(model, "CPU", self._config)
        self._compilations += 1
        return Compiled(keep_in_children(compiled.create_infer_request()))

    def _shared(self, shape: tuple[int, ...] | None) -> Compiled:
        return self._pool.get((self._key, shape), functools.partial(self._compile, shape))

    def _compiled(self, shape: tuple[int, ...]) -> Compiled:
        if shape not in self._fixed and len(self._fixed) < MAX_FIXED_SIZES:
            self._fixed[shape] = self._shared(shape)
        if shape in self._fixed:
            return self._fixed[shape]
        if self._any_size is None:
            self._any_size = self._shared(None)
        return self._any_size

    def ready(self, shape: tuple[int, ...]) -> bool:
        """Make sure that a size is compiled for, as far as sizes have a model of their own; whether it was done now."""
        before = self._compilations
        with self._lock:
            self._compiled(shape)
        return self._compilations > before

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the inputs that have a model of their own."""
        return tuple(self._fixed)

    def infer(self, batch: Uint8Array) -> list[Float32Array]:
        """Run it on a batch (N, H, W, 3) uint8; the outputs are owned by the caller."""
        # OpenVINO shares memory with writable arrays only, and promises to write nothing into an input.
        if not (batch.flags.writeable and batch.flags.c_contiguous):
            batch = batch.copy()
        with self._lock:
            compiled = self._compiled(batch.shape)
        with compiled.lock:
            inputs = [self._ov.Tensor(batch, shared_memory=True), *self._inputs]
            result = compiled.request.infer(inputs)
            compiled.inputs = inputs
            return [result[i] for i in range(len(result))]
