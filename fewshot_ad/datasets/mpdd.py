"""MPDD: metal parts, in MVTec layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import subfolders
from fewshot_ad.datasets.mvtec_ad import LAYOUT, MARKS, MASK_OF, category_samples
from fewshot_ad.datasets.sample import Sample

_COUNTS = {
    "bracket_black": Counts(289, 32, 47),
    "bracket_brown": Counts(185, 26, 51),
    "bracket_white": Counts(110, 30, 30),
    "connector": Counts(128, 30, 14),
    "metal_plate": Counts(54, 26, 71),
    "tubes": Counts(122, 32, 69),
}


@dataset(
    DatasetCard(
        name="mpdd",
        title="MPDD",
        categories=tuple(_COUNTS),
        license="CC-BY-NC-SA-4.0",
        source="https://github.com/stepanje/MPDD",
        citation="Jezek, Jonak, Burget, Dvorak & Skotak 2021, Deep learning-based defect detection of metal parts: "
        "evaluating current methods in complex conditions, ICUMT",
        counts=_COUNTS,
        images=1346,
        masks="pixel",
        layout=LAYOUT,
        marks=MARKS,
        mask_of=MASK_OF,
    )
)
def mpdd(root: Path) -> Iterator[Sample]:
    """Samples of MPDD."""
    for folder in subfolders(root):
        yield from category_samples(folder)
