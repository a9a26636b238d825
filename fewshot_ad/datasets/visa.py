"""VisA in its original layout, with the split for one-class training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Archive, Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import inside, read_table
from fewshot_ad.datasets.sample import GOOD, Sample, Split
from fewshot_ad.errors import DatasetError

SPLIT_FILE = "split_csv/1cls.csv"
_SPLITS: dict[str, Split] = {"train": "train", "test": "test"}
# Source: Zou et al. 2022, one-class split: nine tenths of the good images are for training.
_COUNTS = {
    "candle": Counts(900, 100, 100),
    "capsules": Counts(542, 60, 100),
    "cashew": Counts(450, 50, 100),
    "chewinggum": Counts(453, 50, 100),
    "fryum": Counts(450, 50, 100),
    "macaroni1": Counts(900, 100, 100),
    "macaroni2": Counts(900, 100, 100),
    "pcb1": Counts(904, 100, 100),
    "pcb2": Counts(901, 100, 100),
    "pcb3": Counts(905, 101, 100),
    "pcb4": Counts(904, 101, 100),
    "pipe_fryum": Counts(450, 50, 100),
}


@dataset(
    DatasetCard(
        name="visa",
        title="VisA",
        categories=tuple(_COUNTS),
        license="CC-BY-4.0",
        source="https://github.com/amazon-science/spot-diff",
        citation="Zou, Jeong, Pemula, Zhang & Dabeer 2022, SPot-the-Difference Self-supervised Pre-training for "
        "Anomaly Detection and Segmentation, ECCV",
        counts=_COUNTS,
        images=10821,
        masks="pixel",
        layout="""\
split_csv/1cls.csv (columns object, split, label, image, mask)
{category}/Data/Images/Normal/0000.JPG
{category}/Data/Images/Anomaly/000.JPG
{category}/Data/Masks/Anomaly/000.png""",
        marks=(SPLIT_FILE, "*/Data/Images/*/*.*"),
        mask_of=(r"(.+)/Data/Masks/Anomaly/([^/]+)\.\w+", r"\1/Data/Images/Anomaly/\2"),
        archive=Archive(
            "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
            "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        ),
    )
)
def visa(root: Path) -> Iterator[Sample]:
    """Samples of VisA, in the order of its split file, which does not name the types of defects."""
    table = root / SPLIT_FILE
    for line, row in read_table(table, ("object", "split", "label", "image", "mask"), ()):
        where = f"{table}, line {line}"
        split = _SPLITS.get(row["split"])
        if split is None or row["label"] not in ("normal", "anomaly"):
            raise DatasetError(
                f"{where}: expected split train or test and label normal or anomaly, got {row['split']!r} and "
                f"{row['label']!r}. Copy the file again."
            )
        path = inside(root, row["image"], where)
        if row["label"] == "normal":
            yield Sample(path, row["object"], split, 0, GOOD)
        else:
            mask = (inside(root, row["mask"], where),) if row["mask"] else ()
            yield Sample(path, row["object"], split, 1, "anomaly", mask)
