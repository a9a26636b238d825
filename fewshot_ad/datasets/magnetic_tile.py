"""Magnetic tile defects: images and masks side by side, in one folder per defect type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Archive, Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import images, subfolders
from fewshot_ad.datasets.sample import GOOD, Sample
from fewshot_ad.datasets.splits import held_out


@dataset(
    DatasetCard(
        name="magnetic_tile",
        title="Magnetic tile defects",
        categories=("magnetic_tile",),
        license="none named: free to use if the paper is cited",
        source="https://github.com/abin24/Magnetic-tile-defect-datasets.",
        citation="Huang, Qiu & Yuan 2020, Surface defect saliency of magnetic tile, The Visual Computer 36",
        # Source: the publisher's repository, 952 images in MT_Free.
        counts={"magnetic_tile": Counts(762, 190, 392)},
        images=1344,
        masks="pixel",
        layout="""\
MT_Free/Imgs/exp1_num_1.jpg
MT_Blowhole/Imgs/exp1_num_1.jpg
MT_Blowhole/Imgs/exp1_num_1.png (mask)
MT_Break, MT_Crack, MT_Fray, MT_Uneven: the same
(no split is published: the last fifth of the good images, by the number in their names, are for the test)""",
        marks=("MT_Free/Imgs/*.jpg", "MT_*/Imgs/*.png"),
        mask_of=(r"(MT_\w+/Imgs/[^/]+)\.png", r"\1"),
        archive=Archive("https://github.com/abin24/Magnetic-tile-defect-datasets./archive/HEAD.zip"),
    )
)
def magnetic_tile(root: Path) -> Iterator[Sample]:
    """Samples: all defective images and the last fifth of the good images, by number, are for the test."""
    for folder in subfolders(root):
        if not folder.name.startswith("MT_"):
            continue
        paths = [path for path in images(folder / "Imgs") if path.suffix.lower() == ".jpg"]
        if folder.name == "MT_Free":
            for_test = held_out(_number(path) for path in paths)
            for path in paths:
                yield Sample(path, "magnetic_tile", "test" if _number(path) in for_test else "train", 0, GOOD)
            continue
        for path in paths:
            mask = path.with_suffix(".png")
            kind = folder.name.removeprefix("MT_").lower()
            yield Sample(path, "magnetic_tile", "test", 1, kind, (mask,) if mask.is_file() else ())


def _number(path: Path) -> str:
    """Serial number of the image, padded to sort by value: neighbors, which may show the same tile, stay together."""
    return path.stem.rpartition("_num_")[2].zfill(9)
