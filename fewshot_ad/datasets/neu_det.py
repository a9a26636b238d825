"""NEU-DET: six kinds of defects of hot-rolled steel, with boxes around them; no image is good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from fewshot_ad.datasets.card import Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import images, read_text
from fewshot_ad.datasets.own_images import own_good
from fewshot_ad.datasets.sample import Sample
from fewshot_ad.errors import DatasetError

CATEGORY = "hot_rolled_steel"


@dataset(
    DatasetCard(
        name="neu_det",
        title="NEU-DET",
        categories=(CATEGORY,),
        license="unknown: ask the publisher",
        source="http://faculty.neu.edu.cn/songkechen/zh_CN/zdylm/263270/list/index.htm",
        citation="He, Song, Meng & Yan 2020, An End-to-End Steel Surface Defect Detection Approach via Fusing Multiple "
        "Hierarchical Features, IEEE Transactions on Instrumentation and Measurement 69",
        # 300 images of each kind of defect.
        counts={CATEGORY: Counts(None, None, 1800)},
        images=1800,
        masks="boxes",
        layout="""\
IMAGES/crazing_1.jpg (and inclusion, patches, pitted_surface, rolled-in_scale, scratches)
ANNOTATIONS/crazing_1.xml (boxes as in Pascal VOC)
good/any_name.jpg (optional, your own, of the same steel and camera: the dataset has no good image)
(all images are for the test; of your own, the last fifth by name. The mirror on Kaggle has folders train and
validation: move all images into IMAGES and all .xml into ANNOTATIONS. NEU-CLS has the same images without boxes)""",
        marks=("IMAGES/*.jpg", "ANNOTATIONS/*.xml"),
        mask_of=(r"ANNOTATIONS/(.+)\.xml", r"IMAGES/\1"),
    )
)
def neu_det(root: Path) -> Iterator[Sample]:
    """Samples of NEU-DET, and of one's own good images beside it; the names of the images give the kinds of defects."""
    yield from own_good(root / "good", CATEGORY)
    for path in images(root / "IMAGES"):
        kind = path.stem.rpartition("_")[0] or "defect"
        yield Sample(path, CATEGORY, "test", 1, kind, boxes=_boxes(root / "ANNOTATIONS" / f"{path.stem}.xml"))


def _boxes(path: Path) -> tuple[tuple[int, int, int, int], ...]:
    """Boxes (x, y, width, height) of an annotation file; none if it is missing or damaged."""
    try:
        text = read_text(path)
        # Only a file with a document type can declare entities, which could unfold without end; annotations have none.
        if "<!DOCTYPE" in text:
            return ()
        found = ElementTree.fromstring(text).iter("bndbox")  # noqa: S314
        corners = [tuple(int(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax")) for box in found]
    except (DatasetError, ElementTree.ParseError, ValueError):
        return ()
    return tuple((left, top, right - left, bottom - top) for left, top, right, bottom in corners)
