"""MVTec AD, and its layout, which other datasets use as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import by_stem, images, subfolders
from fewshot_ad.datasets.sample import GOOD, Sample

MARKS = ("*/train/good/*.*", "*/test/*/*.*")
MASK_OF = (r"(.+)/ground_truth/(.+)/([^/]+)_mask\.\w+", r"\1/test/\2/\3")
LAYOUT = """\
{category}/train/good/000.png
{category}/test/good/000.png
{category}/test/{defect type}/000.png
{category}/ground_truth/{defect type}/000_mask.png"""

# Source: Bergmann et al. 2019, table 1.
_COUNTS = {
    "bottle": Counts(209, 20, 63),
    "cable": Counts(224, 58, 92),
    "capsule": Counts(219, 23, 109),
    "carpet": Counts(280, 28, 89),
    "grid": Counts(264, 21, 57),
    "hazelnut": Counts(391, 40, 70),
    "leather": Counts(245, 32, 92),
    "metal_nut": Counts(220, 22, 93),
    "pill": Counts(267, 26, 141),
    "screw": Counts(320, 41, 119),
    "tile": Counts(230, 33, 84),
    "toothbrush": Counts(60, 12, 30),
    "transistor": Counts(213, 60, 40),
    "wood": Counts(247, 19, 60),
    "zipper": Counts(240, 32, 119),
}


@dataset(
    DatasetCard(
        name="mvtec",
        title="MVTec AD",
        categories=tuple(_COUNTS),
        license="CC-BY-NC-SA-4.0",
        source="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        citation="Bergmann, Fauser, Sattlegger & Steger 2019, MVTec AD: A Comprehensive Real-World Dataset for "
        "Unsupervised Anomaly Detection, CVPR",
        counts=_COUNTS,
        images=5354,
        size_gb=5.3,
        masks="pixel",
        layout=LAYOUT,
        marks=MARKS,
        mask_of=MASK_OF,
    )
)
def mvtec_ad(root: Path) -> Iterator[Sample]:
    """Samples of MVTec AD, and of any other categories in its layout."""
    for folder in subfolders(root):
        yield from category_samples(folder)


def category_samples(folder: Path) -> Iterator[Sample]:
    """Samples of one category in the layout of MVTec AD; none for any other folder."""
    category = folder.name
    for path in images(folder / "train" / GOOD):
        yield Sample(path, category, "train", 0, GOOD)
    for kind in subfolders(folder / "test"):
        masks = by_stem(folder / "ground_truth" / kind.name) if kind.name != GOOD else {}
        for path in images(kind):
            if kind.name == GOOD:
                yield Sample(path, category, "test", 0, GOOD)
                continue
            # Some copies of the layout lack the suffix `_mask`.
            mask = masks.get(f"{path.stem}_mask", masks.get(path.stem))
            yield Sample(path, category, "test", 1, kind.name, (mask,) if mask else ())
