"""Severstal: flat steel with four classes of defects, given by run lengths in one table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import images, inside, read_table
from fewshot_ad.datasets.sample import GOOD, Sample
from fewshot_ad.datasets.splits import held_out
from fewshot_ad.errors import DatasetError

TABLE = "train.csv"
CLASSES = ("1", "2", "3", "4")


@dataset(
    DatasetCard(
        name="severstal",
        title="Severstal: Steel Defect Detection",
        categories=("steel",),
        license="rules of the competition at Kaggle; the owner, PAO Severstal, permits research",
        source="https://www.kaggle.com/c/severstal-steel-defect-detection",
        citation="Grishin, BorisV, iBardintsev, inversion & Oleg 2019, Severstal: Steel Defect Detection, Kaggle",
        # Of 12568 images, 5902 are without defect.
        counts={"steel": Counts(4722, 1180, 6666)},
        images=12568,
        masks="pixel",
        layout="""\
train.csv (columns ImageId, ClassId, EncodedPixels; older copies ImageId_ClassId, EncodedPixels)
train_images/0002cc93b.jpg
(an image without EncodedPixels is good; class_1 to class_4 are the defect types, combined where there are several)
(no split is published: the last fifth of the good images by name and all defective ones are for the test;
test_images, whose labels are not published: not read)""",
        marks=(TABLE, "train_images/*.jpg"),
    )
)
def severstal(root: Path) -> Iterator[Sample]:
    """Samples of Severstal: the images of the folder and those that the table names, by name."""
    folder = root / "train_images"
    defects = _defects(root / TABLE, folder)
    paths = sorted({*images(folder), *defects})
    for_test = held_out(path.name for path in paths if not defects.get(path))
    for path in paths:
        found = defects.get(path)
        if found:
            classes = sorted({number for number, _ in found})
            kind = f"class_{classes[0]}" if len(classes) == 1 else "combined"
            yield Sample(path, "steel", "test", 1, kind, runs=tuple(runs for _, runs in found))
        else:
            yield Sample(path, "steel", "test" if path.name in for_test else "train", 0, GOOD)


def _defects(table: Path, folder: Path) -> dict[Path, list[tuple[str, str]]]:
    """Class and run lengths of the defects of each image that the table names; of a good one, an empty list."""
    defects: dict[Path, list[tuple[str, str]]] = {}
    for line, row in read_table(table, ("EncodedPixels",), ("ImageId", "ClassId", "ImageId_ClassId")):
        where = f"{table}, line {line}"
        name, _, number = row.get("ImageId_ClassId", "").rpartition("_")
        name, number = row.get("ImageId", name), row.get("ClassId", number)
        if not name or number not in CLASSES:
            raise DatasetError(
                f"{where}: expected an image and a class among {', '.join(CLASSES)}, got {name!r} and {number!r}. Copy "
                "the file again."
            )
        found = defects.setdefault(inside(folder, name, where), [])
        if row["EncodedPixels"]:
            found.append((number, row["EncodedPixels"]))
    return defects
