"""DeepPCB: pairs of a tested circuit board and its defect-free template, with boxes around the defects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Archive, Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import inside, read_text
from fewshot_ad.datasets.sample import GOOD, Sample, Split
from fewshot_ad.errors import DatasetError

TYPES = {"1": "open", "2": "short", "3": "mousebite", "4": "spur", "5": "copper", "6": "pin-hole"}
# Pairs of a tested board and a template in each group, for training and test.
# Source: the lines of trainval.txt and test.txt in the publisher's repository.
_PAIRS = {
    "00041": (200, 21),
    "12000": (0, 14),
    "12100": (0, 146),
    "12300": (0, 98),
    "13000": (198, 18),
    "20085": (291, 34),
    "44000": (50, 50),
    "50600": (50, 29),
    "77000": (100, 7),
    "90100": (0, 74),
    "92000": (111, 9),
}
_LISTS: tuple[tuple[str, Split], ...] = (("trainval.txt", "train"), ("test.txt", "test"))


@dataset(
    DatasetCard(
        name="deep_pcb",
        title="DeepPCB",
        categories=tuple(f"group{number}" for number in _PAIRS),
        license="research only",
        source="https://github.com/tangsanli5201/DeepPCB",
        citation="Tang, He, Huang & Yang 2019, Online PCB Defect Detector On A New PCB Defect Dataset, "
        "arXiv 1902.06197",
        counts={
            f"group{number}": Counts(train, test, test, train_defective=train)
            for number, (train, test) in _PAIRS.items()
        },
        images=3000,
        masks="boxes",
        layout="""\
PCBData/trainval.txt, test.txt (lines: group00041/00041/00041000.jpg group00041/00041_not/00041000.txt)
PCBData/group00041/00041/00041000_test.jpg (with defects)
PCBData/group00041/00041/00041000_temp.jpg (its template: good)
PCBData/group00041/00041_not/00041000.txt (lines: x1 y1 x2 y2 type)""",
        marks=("PCBData/trainval.txt", "PCBData/test.txt", "PCBData/group*/*/*_test.jpg"),
        mask_of=(r"(.+)/(\d+)_not/(\d+)\.txt", r"\1/\2/\3_test"),
        archive=Archive("https://github.com/tangsanli5201/DeepPCB/archive/HEAD.zip"),
    )
)
def deep_pcb(root: Path) -> Iterator[Sample]:
    """Samples of DeepPCB; each group of boards is a category, and the training split holds defective boards too."""
    data = root / "PCBData"
    for name, split in _LISTS:
        for number, line in enumerate(read_text(data / name).splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{data / name}, line {number}"
            image, _, annotation = line.strip().partition(" ")
            path = inside(data, image, where)
            group = Path(image).parts[0]
            boxes, types = _boxes(inside(data, annotation.strip(), where))
            yield Sample(path.with_name(f"{path.stem}_temp.jpg"), group, split, 0, GOOD)
            yield Sample(path.with_name(f"{path.stem}_test.jpg"), group, split, 1, _kind(types), boxes=boxes)


def _kind(types: set[str]) -> str:
    return types.pop() if len(types) == 1 else "combined" if types else "defect"


def _boxes(path: Path) -> tuple[tuple[tuple[int, int, int, int], ...], set[str]]:
    """Boxes (x, y, width, height) and defect types of an annotation file; both empty if it is missing or damaged."""
    try:
        rows = [line.replace(",", " ").split() for line in read_text(path).splitlines() if line.strip()]
        corners = [(int(x1), int(y1), int(x2), int(y2)) for x1, y1, x2, y2, _ in rows]
    except (DatasetError, ValueError):
        return (), set()
    boxes = tuple((x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in corners)
    return boxes, {TYPES.get(row[4], row[4]) for row in rows}
