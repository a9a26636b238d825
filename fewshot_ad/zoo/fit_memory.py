"""What the fit of a baseline will take of memory, from measurements; said before it, and refused where it is not there.

What each baseline takes at its defaults is measured by `benchmarks/zoo_memory.py`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from fewshot_ad.zoo.components.memory import require_memory
from fewshot_ad.zoo.method import RUNNING, WEIGHTS, options, running_options

BATCHES = ("batch_size", "batch")
# Options that change nothing of what a step takes, or that the estimate knows.
KNOWN = frozenset(
    {
        *("image_size", "epochs", "steps", "teacher_steps", "latent_steps", "pictures", "textures", "penalty_images"),
        *("lr", "learning_rate", "weight_decay", "teacher", "class_name", *BATCHES, *WEIGHTS, *RUNNING),
    }
)


def fit_bytes(name: str, settings: Mapping[str, Any], images: int) -> float | None:
    """Memory that a fit takes beyond what the process takes already.

    Args:
        name: Name of a baseline.
        settings: Hyper-parameters that differ from its defaults, and how it runs.
        images: Number of good images.

    Returns:
        Bytes; None where nobody knows: of a baseline that was not measured, with options that change its networks, in
        another precision, or on a GPU.

    Raises:
        ZooError: No baseline has that name.
    """
    figures = _measured().get(name)
    default = {**running_options(name), **options(name)}
    changed = {key for key, value in settings.items() if key in default and value != default[key]}
    if figures is None or not changed <= KNOWN or changed & RUNNING.keys():
        return None
    side = settings.get("image_size", default.get("image_size", figures["image_size"]))
    growth = (side / figures["image_size"]) ** 2 * batch_of(name, settings, images) / figures["batch"]
    return float(1e6 * (figures["fixed_mb"] + figures["step_mb"] * growth))


def require_fit_memory(name: str, settings: Mapping[str, Any], images: int) -> None:
    """Refuse a fit that would not fit into memory, as far as that is known before it.

    Args:
        name: Name of a baseline.
        settings: As for `fit_bytes`.
        images: Number of good images.

    Raises:
        ZooError: It takes more than is there.
    """
    needed = fit_bytes(name, settings, images)
    if needed is not None:
        batch = batch_of(name, settings, images)
        option = next((option for option in BATCHES if option in options(name)), None)
        advice = f"Give a smaller image_size{f', or a {option} below {batch}' if option and batch > 1 else ''}."
        require_memory(name, needed, advice)


def batch_of(name: str, settings: Mapping[str, Any], images: int) -> int:
    """Images in a step of the training: as many as the batch says, but of a pass through the images, no more than all.

    Args:
        name: Name of a baseline.
        settings: As for `fit_bytes`.
        images: Number of good images.
    """
    resolved = {**options(name), **settings}
    batch = next((int(resolved[option]) for option in BATCHES if option in resolved), 1)
    return min(batch, images) if "epochs" in resolved else batch


@functools.cache
def _measured() -> Mapping[str, Mapping[str, float]]:
    return MappingProxyType(json.loads(files("fewshot_ad.zoo").joinpath("fit_memory.json").read_text("utf-8")))
