"""The baseline zoo: one file per method, one protocol, one registry (extra `zoo`)."""

import importlib
import pkgutil

from fewshot_ad.zoo.method import Card, Labeled, Method, Predictions, baseline, cards, create, option_types, options

# Every file of this folder that registers a baseline does so when it is imported.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Card", "Labeled", "Method", "Predictions", "baseline", "cards", "create", "option_types", "options"]
