"""KolektorSDD2: one surface, with defects in both splits; every image has a mask, all black for a good image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Archive, Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import images
from fewshot_ad.datasets.kolektor_sdd import is_defective
from fewshot_ad.datasets.sample import GOOD, Sample, Split

_SPLITS: tuple[Split, ...] = ("train", "test")


@dataset(
    DatasetCard(
        name="kolektor_sdd2",
        title="KolektorSDD2",
        categories=("surface",),
        license="CC-BY-NC-SA-4.0",
        source="https://www.vicos.si/resources/kolektorsdd2/",
        citation="Božič, Tabernik & Skočaj 2021, Mixed supervision for surface-defect detection: from weakly to fully "
        "supervised learning, Computers in Industry 129",
        counts={"surface": Counts(2085, 894, 110, train_defective=246)},
        images=3335,
        size_gb=0.85,
        masks="pixel",
        layout="""\
train/10000.png
train/10000_GT.png (all black for a good image)
test/20000.png
test/20000_GT.png""",
        marks=("train/*_GT.png", "test/*_GT.png"),
        mask_of=(r"(train/\d+|test/\d+)_GT\.png", r"\1"),
        archive=Archive(
            "https://go.vicos.si/kolektorsdd2", "edcdb486809b24f1d17b785e30c52fafc5999554dd5fe18ddf77b61ceb6f36a8"
        ),
    )
)
def kolektor_sdd2(root: Path) -> Iterator[Sample]:
    """Samples of KolektorSDD2."""
    for split in _SPLITS:
        for path in images(root / split):
            # The archive holds a copy of an image and its mask, `10301 (copy).png`; only names that are numbers count.
            if not path.stem.isdigit():
                continue
            mask = path.with_name(f"{path.stem}_GT.png")
            if is_defective(mask):
                yield Sample(path, "surface", split, 1, "defect", (mask,) if mask.is_file() else ())
            else:
                yield Sample(path, "surface", split, 0, GOOD)
