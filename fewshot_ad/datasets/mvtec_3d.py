"""MVTec 3D-AD: the color images, with the point clouds beside them for the methods that need them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import by_stem, images, subfolders
from fewshot_ad.datasets.points import positions_beside
from fewshot_ad.datasets.sample import GOOD, Sample, Split

# Source: Bergmann et al. 2022, table 1.
_COUNTS = {
    "bagel": Counts(244, 22, 88, 22),
    "cable_gland": Counts(223, 21, 87, 23),
    "carrot": Counts(286, 27, 132, 29),
    "cookie": Counts(210, 28, 103, 22),
    "dowel": Counts(288, 26, 104, 34),
    "foam": Counts(236, 20, 80, 27),
    "peach": Counts(361, 26, 106, 42),
    "potato": Counts(300, 22, 92, 33),
    "rope": Counts(298, 32, 69, 33),
    "tire": Counts(210, 25, 87, 29),
}
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataset(
    DatasetCard(
        name="mvtec_3d",
        title="MVTec 3D-AD",
        categories=tuple(_COUNTS),
        license="CC-BY-NC-SA-4.0",
        source="https://www.mvtec.com/company/research/datasets/mvtec-3d-ad",
        citation="Bergmann, Jin, Sattlegger & Steger 2022, The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly "
        "Detection and Localization, VISAPP",
        counts=_COUNTS,
        images=4147,
        masks="pixel",
        layout="""\
{category}/train/good/rgb/000.png
{category}/validation/good/rgb/000.png
{category}/test/good/rgb/000.png
{category}/test/{defect type}/rgb/000.png
{category}/test/{defect type}/gt/000.png
(xyz/000.tiff beside each rgb: read for methods that need the position of each pixel)""",
        marks=("*/train/good/rgb/*.*", "*/test/*/rgb/*.*"),
        mask_of=(r"(.+)/gt/([^/]+)\.png", r"\1/rgb/\2"),
    )
)
def mvtec_3d(root: Path) -> Iterator[Sample]:
    """Samples of MVTec 3D-AD."""
    for folder in subfolders(root):
        for split in _SPLITS:
            for kind in subfolders(folder / split):
                masks = by_stem(kind / "gt") if kind.name != GOOD else {}
                for path in images(kind / "rgb"):
                    mask = (masks[path.stem],) if path.stem in masks else ()
                    yield Sample(
                        *(path, folder.name, split, int(kind.name != GOOD), kind.name, mask),
                        points=positions_beside(path),
                    )
