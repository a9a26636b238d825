"""KolektorSDD: electrical commutators; every image has a mask beside it, all black for a good image."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from fewshot_ad.datasets.card import Archive, Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import images, subfolders
from fewshot_ad.datasets.sample import GOOD, Sample, read_mask
from fewshot_ad.datasets.splits import held_out
from fewshot_ad.errors import DatasetError


@dataset(
    DatasetCard(
        name="kolektor_sdd",
        title="KolektorSDD",
        categories=("commutator",),
        license="CC-BY-NC-SA-4.0",
        source="https://www.vicos.si/resources/kolektorsdd/",
        citation="Tabernik, Šela, Skvarč & Skočaj 2020, Segmentation-based deep-learning approach for surface-defect "
        "detection, Journal of Intelligent Manufacturing 31",
        counts={"commutator": Counts(None, None, 52)},
        images=399,
        masks="pixel",
        layout="""\
kos01/Part0.jpg
kos01/Part0_label.bmp (all black for a good image)
(no split is published: the good images of the last fifth of the parts are for the test)""",
        marks=("kos*/Part*.jpg", "kos*/Part*_label.bmp"),
        mask_of=(r"(kos\d+/Part\d+)_label\.bmp", r"\1"),
        archive=Archive(
            "https://go.vicos.si/kolektorsdd", "65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc"
        ),
    )
)
def kolektor_sdd(root: Path) -> Iterator[Sample]:
    """Samples of KolektorSDD: the test has all defective images and the good ones of the last fifth of the parts."""
    parts = [folder for folder in subfolders(root) if folder.name.startswith("kos")]
    for_test = held_out(folder.name for folder in parts)
    for folder in parts:
        for path in images(folder):
            if path.suffix.lower() != ".jpg":
                continue
            mask = path.with_name(f"{path.stem}_label.bmp")
            if is_defective(mask):
                yield Sample(path, "commutator", "test", 1, "defect", (mask,) if mask.is_file() else ())
            else:
                yield Sample(path, "commutator", "test" if folder.name in for_test else "train", 0, GOOD)


def is_defective(mask: Path) -> bool:
    """Whether the mask of an image marks a defect; True if it cannot be read, so that no defect is taken for good."""
    try:
        state = mask.stat()
        return _marks_something(mask, state.st_mtime_ns, state.st_size)
    except (OSError, DatasetError):
        return True


@lru_cache(maxsize=1 << 14)
def _marks_something(mask: Path, changed_ns: int, size: int) -> bool:
    """Whether a mask has a pixel that is not black; a file is decoded again only after it has changed."""
    return bool(read_mask(mask).any())
