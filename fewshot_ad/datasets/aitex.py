"""AITEX: strips of seven fabrics, 4096 pixels wide; type of defect and fabric stand in the names of the files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import DatasetCard, dataset
from fewshot_ad.datasets.files import images, subfolders
from fewshot_ad.datasets.sample import GOOD, Sample
from fewshot_ad.datasets.splits import held_out

FABRICS = ("00", "01", "02", "03", "04", "05", "06")
TYPES = {
    "002": "broken_end",
    "006": "broken_yarn",
    "010": "broken_pick",
    "016": "weft_curling",
    "019": "fuzzyball",
    "022": "cut_selvage",
    "023": "crease",
    "025": "warp_ball",
    "027": "knots",
    "029": "contamination",
    "030": "nep",
    "036": "weft_crack",
}
# Number of the image, type of defect, fabric.
_NAME = re.compile(r"\d+_(\d+)_(\d+)")


@dataset(
    DatasetCard(
        name="aitex",
        title="AITEX",
        categories=FABRICS,
        license="unknown: ask the publisher",
        source="https://www.aitex.es/afid/",
        citation="Silvestre-Blanes, Albero-Albero, Miralles, Pérez-Llorens & Moreno 2019, A Public Fabric Database for "
        "Defect Detection Methods and Results, AUTEX Research Journal 19",
        # The paper names 140 good and 105 defective images; the archives hold 141 and 106, one of which is left out.
        images=246,
        masks="pixel",
        layout="""\
NODefect_images/{roll}/0001_000_00.png (number, 000, fabric)
Defect_images/0001_002_00.png (number, type of defect, fabric)
Mask_images/0001_002_00_mask.png (of two images _mask1.png and _mask2.png)
(no split is published: the last fifth of the good images of each fabric, by number, are for the test;
0100_025_08.png is left out: it has no mask, and its fabric 08 has no good image)""",
        marks=("NODefect_images/*/*.png", "Defect_images/*.png", "Mask_images/*_mask*.png"),
        mask_of=(r"Mask_images/(.+)_mask\d?\.png", r"Defect_images/\1"),
    )
)
def aitex(root: Path) -> Iterator[Sample]:
    """Samples of AITEX; each fabric is a category, and all defective images are for the test."""
    good: dict[str, list[Path]] = {fabric: [] for fabric in FABRICS}
    for roll in subfolders(root / "NODefect_images"):
        for path in images(roll):
            if (match := _NAME.fullmatch(path.stem)) and match[2] in good:
                good[match[2]].append(path)
    for fabric, paths in good.items():
        for_test = held_out(path.name for path in paths)
        for path in paths:
            yield Sample(path, fabric, "test" if path.name in for_test else "train", 0, GOOD)
    masks: dict[str, list[Path]] = {}
    for path in images(root / "Mask_images"):
        masks.setdefault(path.stem.rpartition("_mask")[0], []).append(path)
    for path in images(root / "Defect_images"):
        if (match := _NAME.fullmatch(path.stem)) and match[2] in good:
            yield Sample(path, match[2], "test", 1, TYPES.get(match[1], match[1]), tuple(masks.get(path.stem, ())))
