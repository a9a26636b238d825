"""OpenVINO and ONNX Runtime without their telemetry: nothing is sent, no file is written, no child is started."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Bytes. OpenVINO maps 300 MB of its own, and crashes where a limit of the address space (`ulimit -v`) leaves it little
# more: below 1000 MB, 3 of 60 commands crashed (benchmarks/robustness.py --only resources).
MIN_ADDRESS_SPACE = 1000 << 20
# One that lets its own thread in twice: a signal handler may come in here, too.
_making_core = threading.RLock()


def import_openvino() -> Any:
    """The module `openvino`.

    Importing it sends an event to an analytics host and writes an identifier into the user's home folder, unless the
    package `openvino_telemetry` is missing: then OpenVINO puts a stand-in of its own in its place. So that package is
    missing while OpenVINO is imported, and there again for whoever else uses it. Where OpenVINO is imported already,
    nothing changes.

    Raises:
        MemoryError: The address space is limited to less than `MIN_ADDRESS_SPACE`.
    """
    if "openvino" not in sys.modules:
        _check_address_space()
        with _missing("openvino_telemetry"):
            import openvino
    import openvino

    return openvino


def openvino_core() -> Any:
    """OpenVINO's core: one for the whole process, which lasts as long as it does.

    Each core gives the thread that first compiles with it a stack of its own for signal handlers. Of two cores that end
    in the order they began, the second puts back the stack of the first, which is freed by then: the next signal, such
    as Ctrl-C, would end the process with a segmentation fault.
    """
    with _making_core:
        return _core()


@functools.cache
def _core() -> Any:
    return import_openvino().Core()


def import_onnxruntime() -> Any:
    """The module `onnxruntime`.

    Importing it starts a telemetry client, which writes an identifier and a database into the user's home folder and
    looks up a host, unless an environment variable says no at that moment; later calls come too late.

    Raises:
        ImportError: It is not installed.
    """
    if "onnxruntime" not in sys.modules:
        with environment("ORT_DISABLE_TELEMETRY", "1"):
            import onnxruntime
    import onnxruntime

    return onnxruntime


def _check_address_space() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        raise MemoryError(
            f"expected at least {MIN_ADDRESS_SPACE >> 20} MB of address space, got a limit of {limit >> 20} MB: "
            "ulimit -v"
        )


@contextmanager
def _missing(package: str) -> Iterator[None]:
    names = [name for name in sys.modules if name.partition(".")[0] == package]
    before = {name: sys.modules.pop(name) for name in names}
    # None is how Python marks a module that cannot be imported.
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        sys.modules.update(before)


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for a while, for a library that reads it at one moment only.

    Args:
        name: Of the variable.
        value: What it is meanwhile.
    """
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
