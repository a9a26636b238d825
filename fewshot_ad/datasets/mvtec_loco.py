"""MVTec LOCO AD: logical and structural anomalies, with one mask file per defect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import images, subfolders
from fewshot_ad.datasets.sample import GOOD, Sample, Split

# Counted in the archive; Bergmann et al. 2022, table 1, list 7 images less of splicing_connectors.
_COUNTS = {
    "breakfast_box": Counts(351, 102, 173, 62),
    "juice_bottle": Counts(335, 94, 236, 54),
    "pushpins": Counts(372, 138, 172, 69),
    "screw_bag": Counts(360, 122, 219, 60),
    "splicing_connectors": Counts(360, 119, 193, 60),
}
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataset(
    DatasetCard(
        name="mvtec_loco",
        title="MVTec LOCO AD",
        categories=tuple(_COUNTS),
        license="CC-BY-NC-SA-4.0",
        source="https://www.mvtec.com/company/research/datasets/mvtec-loco",
        citation="Bergmann, Batzner, Fauser, Sattlegger & Steger 2022, Beyond Dents and Scratches: Logical Constraints "
        "in Unsupervised Anomaly Detection and Localization, IJCV 130",
        counts=_COUNTS,
        images=3651,
        masks="pixel",
        layout="""\
{category}/train/good/000.png
{category}/validation/good/000.png
{category}/test/good/000.png
{category}/test/logical_anomalies/000.png
{category}/test/structural_anomalies/000.png
{category}/defects_config.json (how much of each kind of defect must be covered)
{category}/ground_truth/{defect type}/000/000.png, 001.png ... (one per defect; any value but 0 is defective)""",
        marks=("*/train/good/*.*", "*/validation/good/*.*", "*/test/*/*.*", "*/ground_truth/*/*/*.*"),
        mask_of=(r"(.+)/ground_truth/([^/]+)/([^/]+)/[^/]+\.png", r"\1/test/\2/\3"),
    )
)
def mvtec_loco(root: Path) -> Iterator[Sample]:
    """Samples of MVTec LOCO AD."""
    for folder in subfolders(root):
        config = folder / "defects_config.json"
        saturations = config if config.is_file() else None
        for split in _SPLITS:
            for kind in subfolders(folder / split):
                for path in images(kind):
                    masks = images(folder / "ground_truth" / kind.name / path.stem) if kind.name != GOOD else []
                    label = int(kind.name != GOOD)
                    yield Sample(path, folder.name, split, label, kind.name, tuple(masks), saturations=saturations)
