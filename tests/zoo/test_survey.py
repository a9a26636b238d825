"""The survey: every method once, and those of the zoo by the names of their baselines."""

from __future__ import annotations

from fewshot_ad.zoo import cards, options
from fewshot_ad.zoo.survey import survey


def test_every_method_is_there_once_and_leads_to_a_baseline() -> None:
    methods = survey()
    assert len(methods) == 110
    assert len({method.name for method in methods}) == len(methods)
    assert all(2017 <= method.year <= 2022 for method in methods)
    known = [method for method in methods if method.baseline]
    assert {method.baseline for method in known} <= set(cards())
    # A method of the survey that the zoo has is not called missing.
    titles = {card.title.lower() for card in cards().values()}
    assert not [method.name for method in methods if method.name.lower() in titles and not method.baseline]


def test_of_one_that_is_missing_it_says_why_and_what_comes_nearest() -> None:
    for method in survey():
        assert bool(method.missing) == bool(method.nearest) == (not method.baseline), method.name
        assert method.nearest in {"", *cards()}, method.name


def test_a_note_names_an_option_that_exists() -> None:
    (block,) = [method for method in survey() if method.name == "SSPCAB"]
    assert block.note == "option sspcab"
    assert "sspcab" in options(block.baseline)
