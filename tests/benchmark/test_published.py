from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fewshot_ad.benchmark.published import beside, parse, published
from fewshot_ad.benchmark.record import COPY, Record
from fewshot_ad.datasets import dataset_cards
from fewshot_ad.errors import BenchmarkError
from tests.benchmark.sample_records import record

FULL: dict[str, Any] = {
    "dataset": "mvtec",
    "layout": "mvtec",
    "setting": "full-shot",
    "shots": "full",
    "protocol": {"test_limit": None},
}
ENTRY = """
entries:
  - method: "A"
    dataset: mpdd
    shots: 2
    figures: {image_auroc: 0.5}
    source: "somewhere"
    note: ""
    verified: true
"""


def test_all_have_a_source_and_figures_that_are_possible() -> None:
    entries = published()
    assert len(entries) > 40
    for entry in entries:
        assert entry.source
        assert entry.verified
        assert entry.shots in (0, 1, 2, 4, 8, 16, 100, 500, "full")
        assert entry.dataset in (*dataset_cards(), "cardboard", "axiom")
        cards = dataset_cards()
        names = cards[entry.dataset].categories if entry.dataset in cards else ()
        known = {"zero-shot", "few-shot", "full-shot", "unified", *(f"fitted on {category}" for category in names)}
        # As records of the setting `transfer` name it.
        known |= {f"transfer from {dataset}" for dataset in cards}
        assert entry.setting in known
        if names:
            assert set(entry.categories) <= set(names)
            assert set(entry.over) <= set(names)
        # A mean over a part stands beside the same part alone, where the others were not run.
        if "is missing (image_auroc)" in entry.note or "is missing (pixel_auroc)" in entry.note:
            assert set(entry.over) == set(entry.categories)
        if entry.method.endswith("(IADBE)"):
            # Some of its runs are below chance, and stand there as they are.
            continue
        # Nothing that was published is below chance; per cent taken for shares would be above 1.
        lowest = {"image_auroc": 0.5, "pixel_auroc": 0.5, "au_pro": 0.5, "pixel_aupr": 0.1}
        assert all(lowest[name] < value <= 1 for name, value in entry.figures.items())


def test_the_extractors_of_a_thesis_are_there_category_by_category() -> None:
    first, second = (e for e in published("mpdd") if e.method in ("Ejaz 2024 (ResNet18)", "Ejaz 2024 (ConvNeXt-Tiny)"))
    means = [np.mean([cell["image_auroc"] for cell in e.categories.values()]) for e in (first, second)]
    # The first one's printed mean is not that of its cells, as its note says.
    assert means == pytest.approx([0.7208, 0.79], abs=1e-4)
    assert [e.figures["image_auroc"] for e in (first, second)] == [0.743, 0.789]
    assert [e.figures["image_auroc"] for e in published("axiom")] == [0.625, 0.6875]


def test_a_whole_benchmark_is_there_category_by_category() -> None:
    own = [entry for entry in published() if entry.method.endswith("(IADBE)") and entry.setting == "full-shot"]
    datasets = ("mvtec", "visa", "mvtec_3d", "btad", "kolektor_sdd")
    assert [sum(entry.dataset == name for entry in own) for name in datasets] == [16] * len(datasets)
    core = published("mvtec", "PatchCore (IADBE)")[0]
    assert core.figures == {"image_auroc": 0.9891, "pixel_auroc": 0.977, "pro": 0.6414}
    assert core.categories["screw"] == {"image_auroc": 0.9811, "pixel_auroc": 0.9891, "pro": 0.3905}
    assert len(core.categories) == 15
    for entry in own:
        for name, mean in entry.figures.items():
            row = [figures[name] for figures in entry.categories.values() if name in figures]
            # Where the printed mean is not that of its row, the note says so.
            told = f"the printed mean of {name}" in entry.note.lower() or not row
            assert told or abs(sum(row) / len(row) - mean) < 2e-4, (entry.method, entry.dataset, name)


def test_are_found_by_dataset_and_method_however_these_are_spelt() -> None:
    regad = published("MVTec", "regad")
    assert [entry.shots for entry in regad] == [2, 4, 8, 16]
    assert regad[1].figures == {"image_auroc": 0.882, "pixel_auroc": 0.958}
    assert published("mvtec", "RegAD") == regad
    assert {entry.dataset for entry in published(method="WinCLIP+")} == {"mvtec", "visa"}
    assert published("no such dataset") == ()


def test_say_what_to_know_before_comparing() -> None:
    assert all("test split" in entry.note for entry in published(method="RegAD"))
    corrected = published("mvtec", "SubspaceAD")[0]
    assert corrected.figures["image_auroc"] == 0.971
    assert "corrected" in corrected.note


def test_the_method_this_package_is_after_is_there_with_what_is_odd_in_its_source() -> None:
    own = [entry for entry in published() if entry.method.startswith("Ejaz 2024")]
    assert {(entry.dataset, entry.shots) for entry in own} == {
        *(("mvtec", shots) for shots in (2, 8)),
        *(("mpdd", shots) for shots in (2, 8)),
        *(("visa", shots) for shots in (2, 8)),
        *(("axiom", shots) for shots in (2, 8)),
    }
    assert len([entry for entry in own if "views" in entry.method]) == 16
    (resnet,) = published("mpdd", "Ejaz 2024 (ResNet18)")
    assert resnet.figures["image_auroc"] == 0.743
    assert "average 72.1" in resnet.note
    assert all("82.4" in entry.note for entry in published("visa", "Ejaz 2024"))


def test_the_setting_is_that_of_the_shots_unless_it_is_said() -> None:
    def setting(shots: str) -> str:
        return parse(ENTRY.replace("shots: 2", f"shots: {shots}"))[0].setting

    assert [setting(shots) for shots in ("0", "2", "full")] == ["zero-shot", "few-shot", "full-shot"]
    assert setting("full\n    setting: unified") == "unified"
    # One model for all categories does not stand beside one for each.
    assert {entry.setting for entry in published() if entry.method.startswith("Dinomaly")} == {"unified"}


def test_published_figures_stand_beside_the_same_categories_and_test_images_only() -> None:
    entries = published("mvtec", "SPADE") + published("visa", "WinCLIP")
    categories = dataset_cards()["mvtec"].categories

    def names(dataset: str, categories: Sequence[str], limit: int | None = None) -> list[tuple[str, str]]:
        kept = {**FULL, "dataset": dataset, "protocol": {"test_limit": limit}}
        records = [record("a", category, **kept) for category in categories]
        return [(name, entry.method) for name, entry in beside(entries, records)]

    assert names("MVTec", categories) == [("MVTec", "SPADE")]
    assert names("MVTec", ["bottle"]) == []
    assert names("MVTec", categories, limit=60) == []
    # A source may have looked at a part, too.
    three = published("mvtec", "EfficientAD + CDO (Khanjani 2025)")
    assert [entry for _, entry in beside(three, [record("a", name, **FULL) for name in three[0].over])] == list(three)
    assert beside(three, [record("a", "cable", **FULL)]) == []
    assert names("my copy", categories) == [("my copy", "SPADE")]
    # A part of it is another average, and other products in its layout are other data.
    assert names("my copy", categories[1:]) == []
    assert names("board", ["bottle", "cookie"]) == []
    assert names("board", [*categories, "cookie"]) == []


def test_published_figures_stand_beside_whole_copies_only() -> None:
    card, spade = dataset_cards()["mvtec"], published("mvtec", "SPADE")

    def copied(lacking: int) -> list[Record]:
        records = []
        for name in card.categories:
            train, *others = (count or 0 for count in card.counts[name])
            counts = dict(zip(COPY, (train - lacking + sum(others), 0, 0, 0), strict=True))
            records.append(record("a", name, **FULL, counts=counts))
        return records

    assert beside(spade, copied(0)) == [("mvtec", spade[0])]
    assert beside(spade, copied(1)) == []


def test_published_figures_of_other_settings_are_found_as_records_spell_them() -> None:
    categories = dataset_cards()["mvtec"].categories
    one = [e for e in published("mvtec", "PatchCore (IADBE)") if e.setting != "full-shot"]
    assert len(one) == 1
    fitted_on = one[0].setting.removeprefix("fitted on ")
    kept = {**FULL, "setting": f"fitted on {fitted_on}"}
    assert beside(one, [record("a", name, **kept) for name in categories]) == [("mvtec", one[0])]
    other = next(name for name in categories if name != fitted_on)
    kept = {**FULL, "setting": f"fitted on {other}"}
    assert beside(one, [record("a", name, **kept) for name in categories]) == []
    axiom = published("axiom")[:1]
    kept = {**FULL, "dataset": "axiom", "layout": "folder", "setting": "transfer from MPDD", "shots": 2}
    assert [e.setting for _, e in beside(axiom, [record("a", "clip", **kept)])] == ["transfer from MPDD"]


def test_one_category_full_shot_is_not_beside_a_mean_because_all_have_run_at_four() -> None:
    spade, categories = published("mvtec", "SPADE"), dataset_cards()["mvtec"].categories
    few = [record("a", category, **{**FULL, "setting": "few-shot", "shots": 4}) for category in categories]
    assert beside(spade, [*few, record("a", "bottle", **FULL)]) == []
    full = [record("a", category, **FULL) for category in categories]
    assert beside(spade, [*few, *full]) == [("mvtec", spade[0])]
    # Asked for, but not done; and done by no method alone.
    failed = [dataclasses.replace(one, status="failed", reason="x") for one in full[1:]]
    assert beside(spade, [full[0], *failed]) == []
    halves = [dataclasses.replace(one, method="ab"[at % 2]) for at, one in enumerate(full)]
    assert beside(spade, halves) == []


def test_cannot_be_changed_by_accident() -> None:
    with pytest.raises(TypeError):
        published()[0].figures["image_auroc"] = 1.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.5", "50.0", "per cent"),
        ("shots: 2", "shots: -1", "whole number"),
        ("shots: 2", "shots: 2\n    setting: 1", "setting"),
        ("shots: 2", "shots: true", "whole number"),
        ('"somewhere"', '""', "source"),
        ("image_auroc", "accuracy", "figures among"),
        ("verified: true", "verified: true\n    categories: {1: {image_auroc: 0.5}}", "names as texts"),
        ("verified: true", "verified: true\n    categories: {a: {image_auroc: 5.0}}", "per cent"),
        ('    note: ""\n', "", "expected"),
        ("verified: true", "verified: 1", "verified"),
        ("entries:", "others:", "list under"),
        ("entries:", "entries: [", "YAML"),
    ],
)
def test_a_damaged_file_is_refused(old: str, new: str, message: str) -> None:
    assert len(parse(ENTRY)) == 1
    with pytest.raises(BenchmarkError, match=message):
        parse(ENTRY.replace(old, new))


def test_an_entry_that_is_there_twice_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="twice"):
        parse(ENTRY + ENTRY.split("entries:\n")[1])
