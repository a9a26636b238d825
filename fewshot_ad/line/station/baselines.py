"""The fitted baselines of a station, which judge products beside those of its catalog."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fewshot_ad.catalog import Catalog
from fewshot_ad.errors import StationError
from fewshot_ad.line.judge import Judge, LoadJudge


class StationBaseline(NamedTuple):
    """A fitted baseline, as it was when the station started.

    Attributes:
        judge: It.
        nbytes: Size of its files.
        changed: When they were written, in seconds since 1970.
    """

    judge: Judge
    nbytes: int
    changed: float


def load_baselines(folders: Sequence[str], load: LoadJudge | None, catalog: Catalog) -> dict[str, StationBaseline]:
    """Fitted baselines by the names of their products.

    Args:
        folders: Where they are.
        load: Reads one.
        catalog: The products that there are besides.

    Raises:
        StationError: Two judge a product of one name, or nothing was given that reads them.
        FewshotADError: One cannot be read.
    """
    found: dict[str, StationBaseline] = {}
    if not folders:
        return found
    if load is None:
        raise StationError(
            "expected load_baseline with settings that name baselines, got None. Give Baseline.load of "
            "fewshot_ad.zoo.fitted."
        )
    for folder in folders:
        judge = load(Path(folder))
        name = judge.product
        # It refuses names that no address could have.
        is_product = catalog.path(name).is_file()
        if name in found or is_product:
            raise StationError(
                f"baselines: expected a product for each, but {folder} judges {name!r}, as does "
                f"{f'the product {name}.fsad' if is_product else 'another baseline'}. Fit it under another name: "
                "fewshot-ad fit --product NAME."
            )
        status = [path.stat() for path in Path(folder).iterdir() if path.is_file()]
        nbytes, changed = sum(one.st_size for one in status), max(one.st_mtime for one in status)
        found[name] = StationBaseline(judge, nbytes, changed)
    return found
