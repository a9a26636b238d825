"""A plain folder of one's own images: subfolders `good`, `bad` and, optionally, `masks`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import DatasetCard, dataset
from fewshot_ad.datasets.files import by_stem, images, subfolders
from fewshot_ad.datasets.sample import GOOD, Sample
from fewshot_ad.datasets.splits import held_out


@dataset(
    DatasetCard(
        name="folder",
        title="A plain folder",
        categories=(),
        license="your own",
        source="your own",
        citation="none",
        images=None,
        masks="pixel",
        layout="""\
good/any_name.png
bad/any_name.png, or bad/{defect type}/any_name.png
masks/any_name.png, or masks/{defect type}/any_name.png (optional; `_mask` may follow the name)
(the last fifth of the good images in the order of their names are for the test; the category is the folder)""",
        marks=("good/*.*", "bad/*"),
        mask_of=(r"masks/(.+?)(?:_mask)?\.\w+", r"bad/\1"),
    )
)
def folder(root: Path) -> Iterator[Sample]:
    """Samples of a plain folder."""
    category = root.resolve().name
    good = images(root / "good")
    for_test = held_out(path.name for path in good)
    for path in good:
        yield Sample(path, category, "test" if path.name in for_test else "train", 0, GOOD)
    kinds = [(root / "bad", root / "masks", "bad")]
    kinds += [(kind, root / "masks" / kind.name, kind.name) for kind in subfolders(root / "bad")]
    for kind, mask_folder, name in kinds:
        masks = by_stem(mask_folder)
        for path in images(kind):
            mask = masks.get(path.stem, masks.get(f"{path.stem}_mask"))
            yield Sample(path, category, "test", 1, name, (mask,) if mask else ())
