"""The baseline zoo: one file per method, one protocol, one registry (extra `zoo`)."""

import importlib
import pkgutil

from fewshot_ad.errors import ZooError
from fewshot_ad.plugins import BASELINES, load_plugins
from fewshot_ad.zoo.configuration import differences, published_options
from fewshot_ad.zoo.method import (
    Card,
    Labeled,
    Method,
    Original,
    Predictions,
    baseline,
    cards,
    check_published_weights,
    create,
    option_types,
    options,
    running_options,
)

# Every file of this folder that registers a baseline does so when it is imported.
try:
    for _module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{_module.name}")
except ModuleNotFoundError as _error:
    raise ZooError(
        f"the baselines need the extra 'zoo' (no module {_error.name}): pip install 'fewshot-ad[zoo]'."
    ) from _error
load_plugins(BASELINES)

__all__ = [
    "Card",
    "Labeled",
    "Method",
    "Original",
    "Predictions",
    "baseline",
    "cards",
    "check_published_weights",
    "create",
    "differences",
    "option_types",
    "options",
    "published_options",
    "running_options",
]
