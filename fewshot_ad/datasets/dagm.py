"""DAGM 2007: ten artificial textures, defects marked by ellipses, in both splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import by_stem, images, read_text
from fewshot_ad.datasets.sample import GOOD, Sample, Split

# Defective images in the training split of each class. The first six classes have 575 images per split, the others
# 1150.
_TRAIN_DEFECTIVE = (79, 66, 66, 82, 70, 83, 150, 150, 150, 150)
_SPLITS: tuple[tuple[str, Split], ...] = (("Train", "train"), ("Test", "test"))


def _counts() -> dict[str, Counts]:
    counts = {}
    for number, train in enumerate(_TRAIN_DEFECTIVE, start=1):
        images_, test = (575, 150 - train) if number <= 6 else (1150, 300 - train)
        counts[f"Class{number}"] = Counts(images_ - train, images_ - test, test, train_defective=train)
    return counts


@dataset(
    DatasetCard(
        name="dagm",
        title="DAGM 2007",
        categories=tuple(_counts()),
        license="none named: publicly available",
        source="https://hci.iwr.uni-heidelberg.de/content/weakly-supervised-learning-industrial-optical-inspection",
        citation="Wieler & Hahn 2007, Weakly Supervised Learning for Industrial Optical Inspection, DAGM Symposium",
        counts=_counts(),
        images=16100,
        masks="pixel",
        layout="""\
Class1/Train/0001.PNG
Class1/Train/Label/0001_label.PNG (only for a defective image)
Class1/Train/Label/Labels.txt
Class1/Test/0001.PNG
Class1/Test/Label/0001_label.PNG""",
        marks=("Class*/Train/*.*", "Class*/Test/*.*", "Class*/*/Label/*.*"),
        mask_of=(r"(.+)/Label/([^/]+)_label\.(?:PNG|png)", r"\1/\2"),
    )
)
def dagm(root: Path) -> Iterator[Sample]:
    """Samples of DAGM 2007, in the order of the class numbers."""
    for category in _counts():
        for name, split in _SPLITS:
            folder = root / category / name
            masks = by_stem(folder / "Label")
            defective = _defective_stems(folder / "Label" / "Labels.txt")
            for path in images(folder):
                mask = masks.get(f"{path.stem}_label")
                if mask or path.stem in defective:
                    yield Sample(path, category, split, 1, "defect", (mask,) if mask else ())
                else:
                    yield Sample(path, category, split, 0, GOOD)


def _defective_stems(path: Path) -> frozenset[str]:
    """Stems of the images that the list calls defective: those whose line names an image and a mask."""
    if not path.is_file():
        return frozenset()
    lines = [[cell for cell in line.split() if cell.lower().endswith(".png")] for line in read_text(path).splitlines()]
    return frozenset(Path(names[0]).stem for names in lines if len(names) == 2)
