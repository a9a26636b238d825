"""A GPU that is none, for tests of `device="cuda"` where there is none.

Its tensors hold their values on the CPU but are of a type of their own, and refuse to meet those of the CPU, as those
of a GPU do: what has not been moved is found. It calls itself `meta`, since torch's own code asks the driver of
everything that calls itself `cuda`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

REPORTED = torch.device("meta")
# What moves values from one device to another.
MOVES = ("_to_copy", "copy_")


class OnDevice(torch.Tensor):
    """A tensor on the stand-in."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="cpu",
            dispatch_device=True,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """What makes tensors would ask the driver: it makes them on the CPU, and they are moved."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.tolist:
            return args[0].cpu().tolist()
        device = kwargs.get("device")
        if device is None or torch.device(device).type == "cpu" or func not in _device_constructors():
            return func(*args, **kwargs)
        return func(*args, **{**kwargs, "device": "cpu"}).to("cuda")


@contextmanager
def stand_in_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have torch see a GPU."""
    with monkeypatch.context() as patch, torch.backends.cudnn.flags(enabled=False):
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        # Of tensors of another type, inference mode makes some that it refuses itself.
        patch.setattr(torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else nullcontext())
        torch._C._ensureCUDADeviceGuardSet()
        # A parameter cannot become one of another type in place.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            with _Calls(), _Mode():
                yield
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(False)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func is torch.ops.prim.device.default:
        return REPORTED
    name, target = func.overloadpacket.__name__, kwargs.get("device")
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    # A single number may come from anywhere, as on a GPU, and so may indices.
    if ours and name not in (*MOVES, "index") and any(not isinstance(t, OnDevice) and t.dim() > 0 for t in tensors):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, got cuda and cpu")
    wrappers = {id(tensor.held): tensor for tensor in ours}
    args, kwargs = tree_map(lambda value: value.held if isinstance(value, OnDevice) else value, (args, kwargs))
    if target is None:
        on_device = isinstance(tensors[0], OnDevice) if name == "copy_" else bool(ours)
    else:
        on_device = torch.device(target).type != "cpu"
        kwargs["device"] = torch.device("cpu")

    def wrap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not on_device:
            return value
        # What an operation changes in place stays the same tensor.
        return wrappers[id(value)] if id(value) in wrappers else OnDevice(value)

    return tree_map(wrap, func(*args, **kwargs))
