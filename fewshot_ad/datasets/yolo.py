"""One's own images with boxes in YOLO's text files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fewshot_ad.datasets.box_labels import yolo_boxes
from fewshot_ad.datasets.card import DatasetCard, dataset
from fewshot_ad.datasets.sample import GOOD, Sample
from fewshot_ad.datasets.splits import held_out
from fewshot_ad.documents.yaml_text import read_yaml
from fewshot_ad.errors import DatasetError
from fewshot_ad.images import SUFFIXES

NAMES = "data.yaml"


@dataset(
    DatasetCard(
        name="yolo",
        title="Boxes in YOLO's text files",
        categories=(),
        license="your own",
        source="your own",
        citation="none",
        images=None,
        masks="boxes",
        layout="""\
images/any_name.jpg, or images/{any folders}/any_name.jpg
labels/any_name.txt, or labels/{the same folders}/any_name.txt
                     (a line for each box: class, center x, center y, width, height, as shares of the image)
data.yaml            (optional: names of the classes)
(an image without labels is good; the last fifth of the good images in the order of their paths and all with boxes are
for the test, whatever their folders are called; the category is the folder)""",
        marks=("images/**/*.*", "labels/**/*.txt"),
        mask_of=(r"labels/(.+)\.txt", r"images/\1"),
    )
)
def yolo(root: Path) -> Iterator[Sample]:
    """Samples of a folder with YOLO labels, by path; the classes of the boxes give the types of defects."""
    category = root.resolve().name
    names = _class_names(root / NAMES)
    paths = sorted(path for path in (root / "images").rglob("*") if path.suffix.lower() in SUFFIXES)
    found = {}
    for path in paths:
        place = path.relative_to(root / "images")
        found[place.as_posix()] = path, yolo_boxes(root / "labels" / place.with_suffix(".txt"))
    for_test = held_out(name for name, (_, boxes) in found.items() if not boxes)
    for name, (path, boxes) in found.items():
        if boxes:
            kinds = sorted({number for number, _ in boxes})
            kind = names.get(kinds[0], f"class_{kinds[0]}") if len(kinds) == 1 else "combined"
            yield Sample(path, category, "test", 1, kind, box_shares=tuple(box for _, box in boxes))
        else:
            yield Sample(path, category, "test" if name in for_test else "train", 0, GOOD)


def _class_names(path: Path) -> Mapping[int, str]:
    """Names of the classes, where the file of the training tool has them, as a list or by number."""
    if not path.exists():
        return {}
    content = read_yaml(path, DatasetError, "YOLO's description of a dataset").content
    names = content.get("names") if isinstance(content, Mapping) else None
    if isinstance(names, Mapping):
        return {int(number): str(name) for number, name in names.items() if str(number).isdigit()}
    return dict(enumerate(map(str, names))) if isinstance(names, Sequence) and not isinstance(names, str) else {}
