from __future__ import annotations

import pytest

from fewshot_ad.benchmark.published import parse, published
from fewshot_ad.errors import BenchmarkError

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
        assert entry.shots in (1, 2, 4, 8, "full")
        assert entry.dataset in ("mvtec", "visa", "mpdd")
        # Nothing that was published is below chance; per cent taken for shares would be above 1.
        lowest = {"image_auroc": 0.5, "pixel_auroc": 0.5, "au_pro": 0.5, "pixel_aupr": 0.1}
        assert all(lowest[name] < value <= 1 for name, value in entry.figures.items())


def test_are_found_by_dataset_and_method_however_these_are_spelt() -> None:
    regad = published("MVTec", "regad")
    assert [entry.shots for entry in regad] == [2, 4, 8]
    assert regad[1].figures == {"image_auroc": 0.882, "pixel_auroc": 0.958}
    assert published("mvtec", "RegAD") == regad
    assert {entry.dataset for entry in published(method="WinCLIP+")} == {"mvtec", "visa"}
    assert published("no such dataset") == ()


def test_say_what_to_know_before_comparing() -> None:
    assert all("test split" in entry.note for entry in published(method="RegAD"))
    corrected = published("mvtec", "SubspaceAD")[0]
    assert corrected.figures["image_auroc"] == 0.971
    assert "corrected" in corrected.note


def test_cannot_be_changed_by_accident() -> None:
    with pytest.raises(TypeError):
        published()[0].figures["image_auroc"] = 1.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.5", "50.0", "per cent"),
        ("shots: 2", "shots: 0", "whole number"),
        ("shots: 2", "shots: true", "whole number"),
        ('"somewhere"', '""', "source"),
        ("image_auroc", "accuracy", "figures among"),
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
