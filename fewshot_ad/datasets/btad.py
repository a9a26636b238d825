"""BTAD: three products of beanTech; good images are in `ok`, defective ones in `ko`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Archive, Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import by_stem, images, subfolders
from fewshot_ad.datasets.sample import GOOD, Sample

_COUNTS = {"01": Counts(400, 21, 49), "02": Counts(399, 30, 200), "03": Counts(1000, 400, 41)}


@dataset(
    DatasetCard(
        name="btad",
        title="BTAD",
        categories=tuple(_COUNTS),
        license="CC-BY-SA-4.0",
        source="https://github.com/pankajmishra000/VT-ADL",
        citation="Mishra, Verk, Fornasier, Piciarelli & Foresti 2021, VT-ADL: A Vision Transformer Network for Image "
        "Anomaly Detection and Localization, ISIE",
        counts=_COUNTS,
        images=2540,
        masks="pixel",
        layout="""\
{category}/train/ok/0000.bmp (02: png)
{category}/test/ok/0000.bmp
{category}/test/ko/0000.bmp
{category}/ground_truth/ko/0000.png (03: bmp)""",
        marks=("*/train/ok/*.*", "*/test/ko/*.*"),
        mask_of=(r"(.+)/ground_truth/ko/([^/]+)\.\w+", r"\1/test/ko/\2"),
        archive=Archive(
            "https://avires.dimi.uniud.it/papers/btad/btad.zip",
            "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
        ),
    )
)
def btad(root: Path) -> Iterator[Sample]:
    """Samples of BTAD."""
    for folder in subfolders(root):
        for path in images(folder / "train" / "ok"):
            yield Sample(path, folder.name, "train", 0, GOOD)
        for path in images(folder / "test" / "ok"):
            yield Sample(path, folder.name, "test", 0, GOOD)
        masks = by_stem(folder / "ground_truth" / "ko")
        for path in images(folder / "test" / "ko"):
            mask = (masks[path.stem],) if path.stem in masks else ()
            yield Sample(path, folder.name, "test", 1, "ko", mask)
