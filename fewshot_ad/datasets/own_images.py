"""One's own good images, for datasets that are published without any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.files import images
from fewshot_ad.datasets.sample import GOOD, Sample
from fewshot_ad.datasets.splits import held_out


def own_good(folder: Path, category: str) -> Iterator[Sample]:
    """Samples of a folder of good images: the last fifth in the order of their names is for the test.

    Args:
        folder: The folder; without it there are no samples.
        category: The category whose defects the dataset has.
    """
    paths = images(folder)
    for_test = held_out(path.name for path in paths)
    for path in paths:
        yield Sample(path, category, "test" if path.name in for_test else "train", 0, GOOD)
