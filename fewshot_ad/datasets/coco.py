"""One's own images with boxes in COCO's JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.box_labels import coco_boxes
from fewshot_ad.datasets.card import DatasetCard, dataset
from fewshot_ad.datasets.files import inside
from fewshot_ad.datasets.sample import GOOD, Sample
from fewshot_ad.datasets.splits import held_out

FILE = "annotations.json"


@dataset(
    DatasetCard(
        name="coco",
        title="Boxes in COCO's JSON",
        categories=(),
        license="your own",
        source="your own",
        citation="none",
        images=None,
        masks="boxes",
        layout="""\
annotations.json (images: id, file_name; annotations: image_id, category_id, bbox; categories: id, name)
images/any_name.jpg (file_name is relative to images/, or to the folder)
(an image without annotations is good; the last fifth of the good images in the order of their names and all with boxes
are for the test; the category is the folder)""",
        marks=(FILE,),
    )
)
def coco(root: Path) -> Iterator[Sample]:
    """Samples of a folder with COCO annotations, by name; the classes of the boxes give the types of defects."""
    category = root.resolve().name
    found = coco_boxes(root / FILE)
    for_test = held_out(name for name, boxes in found.items() if not boxes)
    for name, boxes in sorted(found.items()):
        path = inside(root / "images", name, f"{root / FILE}, {name!r}")
        if not path.is_file():
            path = inside(root, name, f"{root / FILE}, {name!r}")
        if boxes:
            kinds = sorted({kind for kind, _ in boxes})
            kind = kinds[0] if len(kinds) == 1 else "combined"
            yield Sample(path, category, "test", 1, kind, boxes=tuple(box for _, box in boxes))
        else:
            yield Sample(path, category, "test" if name in for_test else "train", 0, GOOD)
