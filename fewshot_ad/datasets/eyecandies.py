"""Eyecandies: rendered candies, of which the color image under global light is read, and depth where it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import images, subfolders
from fewshot_ad.datasets.kolektor_sdd import is_defective
from fewshot_ad.datasets.points import positions_beside
from fewshot_ad.datasets.sample import GOOD, Sample, Split

CANDIES = (
    "CandyCane",
    "ChocolateCookie",
    "ChocolatePraline",
    "Confetto",
    "GummyBear",
    "HazelnutTruffle",
    "LicoriceSandwich",
    "Lollipop",
    "Marshmallow",
    "PeppermintCandy",
)
# The same candy is rendered under six lights. The publisher shows image_5, of the global light, as its color image.
IMAGE = "_image_5"
_SPLITS: tuple[tuple[str, Split], ...] = (("train", "train"), ("val", "validation"), ("test_public", "test"))


@dataset(
    DatasetCard(
        name="eyecandies",
        title="Eyecandies",
        categories=CANDIES,
        license="unknown: ask the publisher",
        source="https://eyecan-ai.github.io/eyecandies/",
        citation="Bonfiglioli, Toschi, Silvestri, Fioraio & De Gregorio 2022, The Eyecandies Dataset for Unsupervised "
        "Multimodal Anomaly Detection and Localization, ACCV",
        # Source: the table of folders on the publisher's page, without the 400 images of each test_private.
        counts={candy: Counts(1000, 25, 25, 100) for candy in CANDIES},
        images=11500,
        masks="pixel",
        layout="""\
{category}/train/data/000_image_5.png
{category}/val/data/00_image_5.png
{category}/test_public/data/00_image_5.png
{category}/test_public/data/00_mask.png (all black for a good image)
({number}_depth.png and {number}_info_depth.yaml beside it: read for methods that need the position of each pixel;
image_0 to image_4, normals, and test_private, which has no masks: not read)""",
        marks=(f"*/train/data/*{IMAGE}.png", f"*/test_public/data/*{IMAGE}.png", "*/test_public/data/*_mask.png"),
        mask_of=(r"(.+/test_public/data/\d+)_mask\.png", rf"\1{IMAGE}"),
    )
)
def eyecandies(root: Path) -> Iterator[Sample]:
    """Samples of Eyecandies; whether a test image is good is told by its mask, as the publisher's own code does."""
    for folder in subfolders(root):
        for name, split in _SPLITS:
            for path in images(folder / name / "data"):
                if not path.stem.endswith(IMAGE):
                    continue
                number = path.stem.removesuffix(IMAGE)
                mask, points = path.with_name(f"{number}_mask.png"), positions_beside(path)
                if split == "test" and is_defective(mask):
                    masks = (mask,) if mask.is_file() else ()
                    yield Sample(path, folder.name, split, 1, "anomaly", masks, points=points)
                else:
                    yield Sample(path, folder.name, split, 0, GOOD, points=points)
