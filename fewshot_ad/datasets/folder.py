"""A plain folder of one's own images: subfolders `good`, `bad` and, optionally, `masks`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import DatasetCard, dataset
from fewshot_ad.datasets.files import by_stem, images_below
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
(further folders may lie in good and in each defect type: good/monday/any_name.png; masks then lie alike. The last fifth
of the good images in the order of their paths are for the test; the category is the folder)""",
        marks=("good/*", "bad/*"),
        mask_of=(r"masks/(.+?)(?:_mask)?\.\w+", r"bad/\1"),
    )
)
def folder(root: Path) -> Iterator[Sample]:
    """Samples of a plain folder."""
    category = root.resolve().name
    good = {path.relative_to(root).as_posix(): path for path in images_below(root / "good")}
    for_test = held_out(good)
    for name, path in good.items():
        yield Sample(path, category, "test" if name in for_test else "train", 0, GOOD)
    masks: dict[Path, dict[str, Path]] = {}
    for path in images_below(root / "bad"):
        below = path.parent.relative_to(root / "bad")
        beside = masks.setdefault(below, by_stem(root / "masks" / below))
        mask = beside.get(path.stem, beside.get(f"{path.stem}_mask"))
        yield Sample(path, category, "test", 1, below.parts[0] if below.parts else "bad", (mask,) if mask else ())
