"""MVTec AD 2: the public part; the publisher keeps the labels of the private test sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import by_stem, images, subfolders
from fewshot_ad.datasets.sample import GOOD, Sample, Split

# Source: Heckler-Kram et al. 2025, the table of the public splits.
_COUNTS = {
    "can": Counts(412, 72, 90, 46),
    "fabric": Counts(387, 66, 90, 43),
    "fruit_jelly": Counts(263, 20, 60, 37),
    "rice": Counts(313, 42, 90, 35),
    "sheet_metal": Counts(137, 24, 90, 19),
    "vial": Counts(291, 35, 105, 41),
    "wallplugs": Counts(293, 60, 90, 33),
    "walnuts": Counts(432, 60, 90, 48),
}
_FOLDERS: tuple[tuple[str, Split], ...] = (("train", "train"), ("validation", "validation"), ("test_public", "test"))


@dataset(
    DatasetCard(
        name="mvtec_ad_2",
        title="MVTec AD 2",
        categories=tuple(_COUNTS),
        license="CC-BY-NC-SA-4.0",
        source="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
        citation="Heckler-Kram, Neudeck, Scheler, König & Steger 2025, The MVTec AD 2 Dataset: Advanced Scenarios for "
        "Unsupervised Anomaly Detection, arXiv 2503.21622",
        counts=_COUNTS,
        images=3914,
        size_gb=32.7,
        masks="pixel",
        layout="""\
{category}/train/good/000_regular.png
{category}/validation/good/000_regular.png
{category}/test_public/good/000_{lighting}.png
{category}/test_public/bad/000_{lighting}.png
{category}/test_public/ground_truth/bad/000_{lighting}_mask.png
(test_private, test_private_mixed: without labels, not read)""",
        marks=("*/train/good/*.*", "*/validation/good/*.*", "*/test_public/*/*.*"),
        mask_of=(r"(.+)/ground_truth/bad/([^/]+)_mask\.\w+", r"\1/bad/\2"),
    )
)
def mvtec_ad_2(root: Path) -> Iterator[Sample]:
    """Samples of the public part of MVTec AD 2."""
    for folder in subfolders(root):
        for name, split in _FOLDERS:
            for path in images(folder / name / GOOD):
                yield Sample(path, folder.name, split, 0, GOOD)
        masks = by_stem(folder / "test_public" / "ground_truth" / "bad")
        for path in images(folder / "test_public" / "bad"):
            mask = masks.get(f"{path.stem}_mask")
            yield Sample(path, folder.name, "test", 1, "bad", (mask,) if mask else ())
