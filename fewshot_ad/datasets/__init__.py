"""Readers of public inspection datasets in their published layouts."""

from fewshot_ad.datasets import (
    btad,
    dagm,
    deep_pcb,
    elpv,
    folder,
    kolektor_sdd,
    kolektor_sdd2,
    magnetic_tile,
    manifest,
    mpdd,
    mvtec_3d,
    mvtec_ad,
    mvtec_ad_2,
    mvtec_loco,
    real_iad,
    visa,
)
from fewshot_ad.datasets.card import Archive, Counts, DatasetCard, dataset, dataset_cards
from fewshot_ad.datasets.checking import CheckReport, check
from fewshot_ad.datasets.downloading import download
from fewshot_ad.datasets.opening import Dataset, open_dataset
from fewshot_ad.datasets.sample import GOOD, Sample, Split
from fewshot_ad.errors import DatasetError

# Importing a reader registers it.
_READERS = (
    btad,
    dagm,
    deep_pcb,
    elpv,
    folder,
    kolektor_sdd,
    kolektor_sdd2,
    magnetic_tile,
    manifest,
    mpdd,
    mvtec_3d,
    mvtec_ad,
    mvtec_ad_2,
    mvtec_loco,
    real_iad,
    visa,
)

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
