"""Where a baseline computes and how precisely: its fit and its predictions on a GPU, or in mixed precision."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fewshot_ad.errors import ZooError

PRECISIONS = ("f32", "bf16")
# What draws a tensor of its own, and is told where.
_DRAWN = (torch.rand, torch.randn, torch.randint, torch.randperm)
# What draws a tensor like others.
_DRAWN_LIKE = (torch.rand_like, torch.randn_like, torch.randint_like, torch.normal, torch.bernoulli, torch.multinomial)
# What draws into a tensor that is there.
_DRAWN_INTO = ("uniform_", "normal_", "kaiming_uniform_", "random_", "bernoulli_", "exponential_")


@contextlib.contextmanager
def placed(device: str, precision: str) -> Iterator[None]:
    """Let what torch makes within the block be made on a device, and multiply in a precision.

    Tensors from arrays and numbers begin on the device, and arrays of tensors come back from it, so that a method needs
    no word about devices. Random numbers are drawn on the CPU and moved, initial weights too: but for dropout, a
    seed gives the same ones everywhere.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        precision: `f32`, or `bf16` for multiplications in bfloat16, as torch.autocast chooses them.
    """
    target = torch.device(device)
    # Without its cache: that keeps the first bfloat16 copy of each weight until the block ends, whatever an optimizer
    # has made of the weight since.
    autocast = torch.autocast(target.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
    with target, _Crossing(target), autocast:
        yield


def made_on(factory: Callable[[], Any], device: str, precision: str) -> Any:
    """A method that is made, and whose `fit`, `predict` and `skeleton` run, as `placed`.

    One that sees to it itself, since its library does, has a `run_on(device, precision)` for it.

    Raises:
        ZooError: There is no such device or precision.
    """
    check_device(device)
    if precision not in PRECISIONS:
        raise ZooError(f"precision: expected {' or '.join(PRECISIONS)}, got {precision!r}.")
    with placed(device, precision):
        method = factory()
    if hasattr(method, "run_on"):
        method.run_on(device, precision)
        return method
    for name in ("fit", "predict", "skeleton"):
        if hasattr(method, name):
            setattr(method, name, _within(getattr(method, name), device, precision))
    return method


def check_device(device: str) -> None:
    """Make sure that torch can compute on a device.

    Raises:
        ZooError: There is none of that name.
    """
    kind, _, number = str(device).partition(":")
    if kind == "cpu" and not number:
        return
    if kind != "cuda" or (number and not number.isdigit()):
        raise ZooError(f"expected a device of cpu, cuda or cuda:N, got {device!r}.")
    if not torch.cuda.is_available():
        raise ZooError(
            f"device: expected cpu, since torch sees no GPU here, got {device!r}. Install a torch with CUDA, or leave "
            "the device out."
        )
    if number and int(number) >= torch.cuda.device_count():
        raise ZooError(f"device: expected a GPU below number {torch.cuda.device_count()}, got {device!r}.")


class _Crossing(TorchFunctionMode):
    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.numpy, torch.Tensor.__array__):
            tensor, *rest = args
            # numpy knows no bfloat16.
            tensor = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
            return func(tensor.cpu(), *rest, **kwargs)
        generator = kwargs.get("generator")
        into = getattr(func, "__name__", "") in _DRAWN_INTO
        drawn = generator is None and self._device.type != "cpu" and (into or func in _DRAWN or func in _DRAWN_LIKE)
        if drawn or (isinstance(generator, torch.Generator) and generator.device.type == "cpu"):
            if into or func.__name__.endswith("_"):
                # torch.nn.init hands its tensor on by name.
                filled, *rest = args or (kwargs.pop("tensor"),)
                here = [value.cpu() if isinstance(value, torch.Tensor) else value for value in rest]
                # torch.nn.init sets the values of parameters without a gradient, only further inside.
                with torch.no_grad() if filled.is_leaf and filled.requires_grad else contextlib.nullcontext():
                    return filled.copy_(func(torch.empty_like(filled, device="cpu"), *here, **kwargs))
            on_cpu = [value.device.type == "cpu" for value in args if isinstance(value, torch.Tensor)]
            target = kwargs.pop("device", None) or ("cpu" if on_cpu and all(on_cpu) else self._device)
            made = {"device": "cpu"} if func in _DRAWN else {}
            here = [value.cpu() if isinstance(value, torch.Tensor) else value for value in args]
            return func(*here, **kwargs, **made).to(target)
        return func(*args, **kwargs)


def _within(call: Callable[..., Any], device: str, precision: str) -> Callable[..., Any]:
    @functools.wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        with placed(device, precision):
            return call(*args, **kwargs)

    return run
