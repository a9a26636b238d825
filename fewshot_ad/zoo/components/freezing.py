"""What `fit` leaves behind, as tensors and plain JSON, and back: no code is stored, and none is run from a file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from fewshot_ad.errors import ZooError
from fewshot_ad.search.memory_bank import MemoryBank, Origin

Tensors = dict[str, torch.Tensor]


def freeze(value: Any, name: str, tensors: Tensors) -> Any:
    """A value as plain JSON types; its tensors go into `tensors` under names that begin with `name`.

    Args:
        value: None, a bool, number or text; an array, tensor, network or memory bank; or a list, tuple, dict or
            dataclass of such values.
        name: Where it belongs.
        tensors: Gets its tensors.

    Raises:
        ZooError: It is of another kind.
    """
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return {"value": value}
    if isinstance(value, nn.Module):
        for key, tensor in value.state_dict().items():
            tensors[f"{name}/{key}"] = _own(tensor)
        return {"network": name}
    if isinstance(value, torch.Tensor):
        tensors[name] = _own(value)
        return {"tensor": name}
    if isinstance(value, np.ndarray):
        tensors[name] = _own(torch.from_numpy(np.ascontiguousarray(value)))
        return {"array": name}
    if isinstance(value, MemoryBank):
        parts = {"vectors": value.vectors.astype(value.stored_dtype), "origin": value.origin, "metric": value.metric}
        return {"bank": {key: freeze(part, f"{name}/{key}", tensors) for key, part in parts.items()}}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: freeze(item, f"{name}/{key}", tensors) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        items = [freeze(item, f"{name}/{number}", tensors) for number, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        return {"fields": {key: freeze(getattr(value, key), f"{name}/{key}", tensors) for key in fields}}
    raise ZooError(f"{name}: expected tensors, networks, numbers or dataclasses of them, got {type(value).__name__}.")


def thaw(blank: Any, frozen: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The value that was frozen.

    Args:
        blank: What the tensors cannot say: a network of the same shape, which is filled; the class of a dataclass or of
            a named tuple, or one with blanks in its fields; a list or tuple of blanks; else None.
        frozen: What `freeze` returned.
        tensors: The tensors.

    Raises:
        ZooError: They do not fit together.
    """
    if not isinstance(frozen, dict):
        raise ZooError(f"expected a stored value, got {frozen!r:.100}.")
    kind = next((kind for kind in _THAW if kind in frozen), None)
    if kind is None:
        raise ZooError(f"expected a stored value of a known kind, got {sorted(map(str, frozen))}.")
    return _THAW[kind](blank, frozen[kind], tensors)


def _value(blank: Any, stored: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    return stored


def _array(blank: Any, stored: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    return _tensor(blank, stored, tensors).cpu().numpy()


def _bank(blank: Any, stored: Any, tensors: Mapping[str, torch.Tensor]) -> MemoryBank:
    parts = _mapping(stored, ("vectors", "origin", "metric"))
    origin = thaw(Origin, parts["origin"], tensors)
    vectors = thaw(None, parts["vectors"], tensors).astype(np.float32)
    return MemoryBank(vectors, origin, thaw(None, parts["metric"], tensors))


def _dict(blank: Any, stored: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {key: thaw(None, item, tensors) for key, item in stored.items()}


def _list(blank: Any, stored: Any, tensors: Mapping[str, torch.Tensor]) -> list[Any]:
    blanks = blank if isinstance(blank, (list, tuple)) else [None] * len(stored)
    if len(blanks) != len(stored):
        raise ZooError(f"expected {len(blanks)} stored values, got {len(stored)}.")
    return [thaw(one, item, tensors) for one, item in zip(blanks, stored, strict=True)]


def _tuple(blank: Any, stored: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    items = _list(blank, stored, tensors)
    return blank(*items) if isinstance(blank, type) else tuple(items)


def _fields(blank: Any, stored: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not dataclasses.is_dataclass(blank):
        raise ZooError(f"expected no dataclass here, got {stored!r:.100}.")
    kind = blank if isinstance(blank, type) else type(blank)
    names = [field.name for field in dataclasses.fields(kind)]
    parts = _mapping(stored, names)
    inner = {name: None if isinstance(blank, type) else getattr(blank, name) for name in names}
    return kind(**{name: thaw(inner[name], parts[name], tensors) for name in names})


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that shares no memory with another, as safetensors wants it."""
    return tensor.detach().cpu().clone().contiguous()


def _network(network: Any, name: Any, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    if not isinstance(network, nn.Module):
        raise ZooError(f"{name}: expected a network to fill, got none.")
    stored = {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}
    expected = network.state_dict()
    if stored.keys() != expected.keys():
        differing = sorted(stored.keys() ^ expected.keys())
        raise ZooError(f"{name}: expected the tensors of this method's network, {differing[0]} is missing or too much.")
    for path, module in network.named_modules():
        prefix = f"{path}." if path else ""
        for key, parameter in module._parameters.items():
            if parameter is not None:
                tensor = stored[prefix + key]
                if tensor.shape != parameter.shape:
                    raise ZooError(f"{name}: expected {prefix}{key} of {parameter.shape}, got {tensor.shape}.")
                module._parameters[key] = nn.Parameter(tensor, requires_grad=False)
        for key in module._buffers:
            # Of any shape: memory banks and statistics are buffers, and as large as the good images made them.
            if prefix + key in stored:
                module._buffers[key] = stored[prefix + key]
    return network.requires_grad_(False).eval()


def _tensor(blank: Any, name: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if not isinstance(name, str) or name not in tensors:
        raise ZooError(f"expected a stored tensor, got {name!r}, which is none.")
    return tensors[name]


def _mapping(value: Any, names: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        raise ZooError(f"expected stored fields {sorted(names)}, got {value!r:.100}.")
    return value


_THAW: dict[str, Callable[[Any, Any, Mapping[str, torch.Tensor]], Any]] = {
    "value": _value,
    "network": _network,
    "tensor": _tensor,
    "array": _array,
    "bank": _bank,
    "dict": _dict,
    "list": _list,
    "tuple": _tuple,
    "fields": _fields,
}
