"""MIAD: rendered outdoor equipment seen at maintenance, in MVTec layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import DatasetCard, dataset
from fewshot_ad.datasets.files import subfolders
from fewshot_ad.datasets.mvtec_ad import LAYOUT, MARKS, MASK_OF, category_samples
from fewshot_ad.datasets.sample import Sample


@dataset(
    DatasetCard(
        name="miad",
        title="MIAD",
        categories=(
            "catenary_dropper",
            "electrical_insulator",
            "metal_welding",
            "nut_and_bolt",
            "photovoltaic_module",
            "wind_turbine",
            "witness_mark",
        ),
        license="CC-BY-NC-SA-4.0",
        source="https://miad-2022.github.io/",
        citation="Bao, Chen, Li, Wang, Fei, Wu, Zhao & Zheng 2023, MIAD: A Maintenance Inspection Dataset for "
        "Unsupervised Anomaly Detection, ICCV Workshops",
        images=105000,
        masks="pixel",
        layout=LAYOUT,
        marks=MARKS,
        mask_of=MASK_OF,
    )
)
def miad(root: Path) -> Iterator[Sample]:
    """Samples of MIAD."""
    for folder in subfolders(root):
        yield from category_samples(folder)
