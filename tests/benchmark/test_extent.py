"""Below a table stands what it was measured on, and what a copy lacks."""

from __future__ import annotations

import dataclasses

from fewshot_ad.benchmark import tables
from fewshot_ad.benchmark.extent import extent
from tests.benchmark.sample_records import record

COPY = {"copy_train_good": 209, "copy_validation_good": 0, "copy_test_good": 20, "copy_test_defective": 63}


def of(category: str, good: int, defective: int, masks: int, method: str = "PatchCore", **copy: int):  # type: ignore[no-untyped-def]
    counts = {"test_good": good, "test_defective": defective, "masks": masks, **copy}
    return record(method, category, dataset="MVTec AD", counts=counts, status="done", figures={"image_auroc": 0.9})


def test_images_limit_and_masks_are_said() -> None:
    some = [of("bottle", 8, 10, 10), of("zipper", 8, 4, 0), of("bottle", 2, 2, 2, "slow one")]
    limited = [dataclasses.replace(one, protocol={"test_limit": 10}) for one in some]
    assert extent(limited) == (
        "Tested on bottle: 8 good, 10 defective; zipper: 8 good, 4 defective (at most 10 good and 10 defective ones of "
        "each category). Figures of pixels and maps are without zipper: no masks there."
    )
    for written in (tables.markdown(limited), tables.latex(limited)):
        assert "at most 10 good and 10 defective ones of each category" in written


def test_what_a_copy_lacks_is_said() -> None:
    assert "Less than" not in extent([of("bottle", 20, 63, 63, **COPY)])
    short = COPY | {"copy_train_good": 8}
    said = extent([of("bottle", 20, 63, 63, **short), of("casting", 20, 63, 63, **short)])
    assert said.endswith(
        "No category of MVTec AD: casting. Less than MVTec AD has: bottle (91 of 292 images); its published figures do "
        "not compare."
    )
    own = [dataclasses.replace(one, dataset="my parts") for one in (of("casting", 20, 63, 63, **short),)]
    assert extent(own) == "Tested on casting: 20 good, 63 defective."


def test_many_categories_are_summed_and_old_records_say_nothing() -> None:
    assert extent([of(f"part {n}", 100, 200, 200) for n in range(10)]).startswith(
        "Tested on 1,000 good and 2,000 defective images of 10 categories."
    )
    assert extent([dataclasses.replace(of("bottle", 1, 1, 1), counts={})]) == ""


def test_latex_says_what_differs() -> None:
    one = dataclasses.replace(of("bottle", 8, 10, 10), differs=("epochs 1 (published: 100)",))
    assert r"PatchCore: epochs 1 (published: 100)." in tables.latex([one])
