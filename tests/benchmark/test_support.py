from __future__ import annotations

from pathlib import Path

import pytest

from fewshot_ad.benchmark.support import by_hash, list_hash, read_lists, shipped_lists, support_names
from fewshot_ad.datasets import dataset_cards as cards
from fewshot_ad.errors import BenchmarkError

NAMES = [f"{i:03d}.png" for i in range(20)]


def test_draws_nest_differ_and_depend_on_names_alone() -> None:
    eight = support_names(NAMES, "nut", 8, 0, None)
    assert support_names(NAMES, "nut", 4, 0, None) == eight[:4]
    assert support_names(NAMES[::-1], "nut", 8, 0, None) == eight
    assert support_names(NAMES, "nut", 8, 1, None) != eight
    assert support_names(NAMES, "bolt", 8, 0, None) != eight
    # An image more changes at most one of them.
    assert len(set(support_names([*NAMES, "extra.png"], "nut", 8, 0, None)) - set(eight)) <= 1


def test_a_fixed_list_goes_before(tmp_path: Path) -> None:
    file = tmp_path / "lists.txt"
    file.write_text("# a comment\nnut\t0\t003.png\t001.png\t\n")
    listed = read_lists(file)["nut", 0]
    assert listed == ("003.png", "001.png")
    assert support_names(NAMES, "nut", 2, 0, listed) == ["003.png", "001.png"]
    assert support_names([n.replace("png", "jpg") for n in NAMES], "nut", 1, 0, listed[:1]) == ["003.jpg"]
    with pytest.raises(BenchmarkError, match=r"003\.png is on the support list of draw 0, but not in the dataset"):
        support_names(NAMES[:3], "nut", 1, 0, listed)


@pytest.mark.parametrize(
    "line", ["nut 0 003.png", "nut\tfirst\t003.png", "nut\t0\ta.png\ta.png", "nut\t0\ta.png\t\tb.png"]
)
def test_a_line_that_is_no_list(tmp_path: Path, line: str) -> None:
    (tmp_path / "lists.txt").write_text(line + "\n")
    with pytest.raises(BenchmarkError, match="line 1: expected a category, a draw and different file names"):
        read_lists(tmp_path / "lists.txt")


def test_too_few_images() -> None:
    with pytest.raises(BenchmarkError, match="nut: expected 8 good training images, got 3"):
        support_names(NAMES[:3], "nut", 8, 0, None)
    with pytest.raises(BenchmarkError, match="nut: expected 8 good training images, got 3"):
        support_names(NAMES[:3], "nut", 8, 0, NAMES[:2])


def test_the_shipped_lists_are_those_the_names_give() -> None:
    lists = shipped_lists("mvtec")
    assert len(lists) == 15 * 3
    bottle = [f"{i:03d}.png" for i in range(209)]
    assert list(lists["bottle", 1]) == support_names(bottle, "bottle", 8, 1, None)
    # More shots than a list has names go on where it ends.
    assert support_names(bottle, "bottle", 16, 1, lists["bottle", 1]) == support_names(bottle, "bottle", 16, 1, None)
    assert shipped_lists("folder") == {}


def test_every_shipped_category_has_three_draws_of_eight() -> None:
    for layout in ("mvtec", "visa"):
        lists = shipped_lists(layout)
        assert set(lists) == {(category, draw) for category in cards()[layout].categories for draw in range(3)}
        assert all(len(set(names)) == 8 for names in lists.values())


def test_hashes() -> None:
    assert by_hash(["a", "b", "c"], str, "salt") == by_hash(["c", "a", "b"], str, "salt")
    assert list_hash(["a", "b"]) != list_hash(["b", "a"])
