"""A fitted baseline, stored and read again, without files."""

from __future__ import annotations

import json
from typing import Any

from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.freezing import Tensors, freeze, thaw
from fewshot_ad.zoo.components.model_folder import without_weights
from fewshot_ad.zoo.method import Method


def restored(name: str, method: Any, settings: dict[str, Any], seed: int) -> Method:
    """Another method with what `fit` left behind in the first, by way of JSON."""
    tensors: Tensors = {}
    state = json.loads(json.dumps({key: freeze(getattr(method, key), key, tensors) for key in method.skeleton()}))
    other: Any = create(name, seed=seed, **without_weights(name, json.loads(json.dumps(settings))))
    for key, blank in other.skeleton().items():
        setattr(other, key, thaw(blank, state[key], tensors))
    return other
