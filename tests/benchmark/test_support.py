from __future__ import annotations

from pathlib import Path

import pytest

from fewshot_ad.benchmark.support import by_hash, chosen, list_hash, read_lists, shipped_lists
from fewshot_ad.errors import BenchmarkError

NAMES = [f"{i:03d}.png" for i in range(20)]


def test_draws_nest_differ_and_depend_on_names_alone() -> None:
    eight = chosen(NAMES, "nut", 8, 0, {})
    assert chosen(NAMES, "nut", 4, 0, {}) == eight[:4]
    assert chosen(NAMES[::-1], "nut", 8, 0, {}) == eight
    assert chosen(NAMES, "nut", 8, 1, {}) != eight
    assert chosen(NAMES, "bolt", 8, 0, {}) != eight
    # A photograph more changes at most one of them.
    assert len(set(chosen([*NAMES, "extra.png"], "nut", 8, 0, {})) - set(eight)) <= 1


def test_a_fixed_list_goes_before(tmp_path: Path) -> None:
    file = tmp_path / "lists.txt"
    file.write_text("# a comment\nnut\t0\t003.png\t001.png\n")
    lists = read_lists(file)
    assert chosen(NAMES, "nut", 2, 0, lists) == ["003.png", "001.png"]
    assert chosen(NAMES, "nut", 2, 1, lists) == chosen(NAMES, "nut", 2, 1, {})
    assert chosen([n.replace("png", "jpg") for n in NAMES], "nut", 1, 0, lists) == ["003.jpg"]
    with pytest.raises(BenchmarkError, match="has 2 names, not 3"):
        chosen(NAMES, "nut", 3, 0, lists)
    with pytest.raises(BenchmarkError, match=r"003\.png is on the support list of draw 0, but not in the dataset"):
        chosen(NAMES[:3], "nut", 1, 0, lists)
    file.write_text("nut 0 003.png\n")
    with pytest.raises(BenchmarkError, match="line 1: expected a category, a draw and file names"):
        read_lists(file)


def test_too_few_photographs() -> None:
    with pytest.raises(BenchmarkError, match="nut: expected 8 good training photographs, got 3"):
        chosen(NAMES[:3], "nut", 8, 0, {})


def test_the_shipped_lists_are_those_the_names_give() -> None:
    lists = shipped_lists("mvtec")
    assert len(lists) == 15 * 3
    bottle = [f"{i:03d}.png" for i in range(209)]
    assert list(lists["bottle", 1]) == chosen(bottle, "bottle", 8, 1, {})
    assert shipped_lists("folder") == {}


def test_hashes() -> None:
    assert by_hash(["a", "b", "c"], str, "salt") == by_hash(["c", "a", "b"], str, "salt")
    assert list_hash(["a", "b"]) != list_hash(["b", "a"])
