"""Readers of public inspection datasets in their published layouts."""

import importlib
import pkgutil

from fewshot_ad.datasets.card import Archive, Counts, DatasetCard, dataset, dataset_cards
from fewshot_ad.datasets.checking import CheckReport, check
from fewshot_ad.datasets.downloading import download
from fewshot_ad.datasets.opening import Dataset, open_dataset
from fewshot_ad.datasets.sample import GOOD, Sample, Split
from fewshot_ad.errors import DatasetError
from fewshot_ad.plugins import DATASETS, load_plugins

# Importing a module of this folder registers the reader in it.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
load_plugins(DATASETS)

__all__ = [
    "GOOD",
    "Archive",
    "CheckReport",
    "Counts",
    "Dataset",
    "DatasetCard",
    "DatasetError",
    "Sample",
    "Split",
    "check",
    "dataset",
    "dataset_cards",
    "download",
    "open_dataset",
]
