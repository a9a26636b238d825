"""OpenVINO and ONNX Runtime without their telemetry: nothing is sent, no file is written, no child is started."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Bytes. OpenVINO maps 300 MB of its own, and crashes where a limit of the address space (`ulimit -v`) leaves it little
# more: below 1000 MB, 3 of 60 commands crashed (benchmarks/robustness.py --only resources).
MIN_ADDRESS_SPACE = 1000 << 20


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


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put the stack on which this thread's signal handlers run back to what it was; Linux only, as what it is for.

    A core of OpenVINO that loads its CPU plugin, as to compile, gives the thread a stack of its own and frees it when
    the plugin ends. Of two that end in the order they began, the second puts back the freed one of the first: the next
    signal, such as Ctrl-C, would end the process with a segmentation fault.
    """
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        # One too small for what the processor saves by now is refused; none at all never is.
        if libc.sigaltstack(ctypes.byref(before), None) != 0:
            libc.sigaltstack(ctypes.byref(_SignalStack(flags=_NO_STACK)), None)


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_NO_STACK = 2


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
