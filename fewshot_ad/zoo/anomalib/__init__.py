"""The methods of anomalib, each behind the zoo's two calls."""

import importlib
import pkgutil

# Every file of this folder that registers baselines does so when it is imported; anomalib itself is not imported by it.
for _module in pkgutil.iter_modules(__path__):
    if not _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")
