"""RSDDs: long images of rail surfaces, of express rails (type I) and of common and heavy-haul rails (type II)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import by_stem, images
from fewshot_ad.datasets.own_images import own_good
from fewshot_ad.datasets.sample import Sample

# Source: the publisher's page; each image has a defect.
_COUNTS = {"Type-I": Counts(None, None, 67), "Type-II": Counts(None, None, 128)}


@dataset(
    DatasetCard(
        name="rsdd",
        title="RSDDs",
        categories=tuple(_COUNTS),
        license="unknown: ask the publisher",
        source="http://icn.bjtu.edu.cn/Visint/resources/RSDDs.aspx",
        citation="Gan, Li, Wang & Yu 2017, A Hierarchical Extractor-Based Visual Rail Surface Inspection System, IEEE "
        "Sensors Journal 17",
        counts=_COUNTS,
        images=195,
        masks="pixel",
        layout="""\
{category} RSDDs dataset/Rail surface images/rail_1.jpg
{category} RSDDs dataset/GroundTruth/rail_1.jpg (mask)
{category} RSDDs dataset/good/any_name.jpg (optional, your own, of the same rails and camera: the dataset has no
good image)
(categories are Type-I and Type-II; all images are for the test; of your own, the last fifth by name)""",
        marks=("Type-* RSDDs dataset/Rail surface images/*.*", "Type-* RSDDs dataset/GroundTruth/*.*"),
        mask_of=(r"(Type-I+ RSDDs dataset)/GroundTruth/([^/]+)\.\w+", r"\1/Rail surface images/\2"),
    )
)
def rsdd(root: Path) -> Iterator[Sample]:
    """Samples of RSDDs, and of one's own good images beside them."""
    for category in _COUNTS:
        folder = root / f"{category} RSDDs dataset"
        yield from own_good(folder / "good", category)
        masks = by_stem(folder / "GroundTruth")
        for path in images(folder / "Rail surface images"):
            yield Sample(path, category, "test", 1, "defect", (masks[path.stem],) if path.stem in masks else ())
