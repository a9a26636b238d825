"""Which images a method is fitted on and tested on: fixed lists, and draws that depend on names alone."""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from fewshot_ad.documents.reading import read_text
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.printable import printable

Lists: TypeAlias = Mapping[tuple[str, int], tuple[str, ...]]
Item = TypeVar("Item")
LISTS_BYTES = 64_000_000
HEADING = "# category, draw, file names"


def read_lists(path: Path) -> Lists:
    """Fixed support lists: category and draw -> file names, the first K of which are the support set of K shots.

    The file is text: each line has a category, a draw and file names, separated by tabs; `#` starts a comment.

    Raises:
        BenchmarkError: It cannot be read, or a line is something else.
    """
    text = read_text(path, BenchmarkError, "support lists", LISTS_BYTES)
    return _parse(text, str(path))


def shipped_lists(layout: str) -> Lists:
    """The lists that ship with fewshot_ad for one dataset; empty where none do."""
    file = importlib.resources.files("fewshot_ad.benchmark") / "support_lists" / f"{layout}.txt"
    return _parse(file.read_text(encoding="utf-8"), file.name) if file.is_file() else {}


def lists_text(lists: Lists) -> str:
    """Fixed support lists as `read_lists` reads them; what a line cannot hold is escaped, see `printable`."""
    lines = [
        "\t".join([printable(category), str(draw), *map(printable, names)]) for (category, draw), names in lists.items()
    ]
    return "\n".join([HEADING, *lines]) + "\n"


def check_unchanged(path: Path, drawn: Lists) -> None:
    """Make sure that lists which are about to be replaced say nothing of their own.

    Lists of fewer or more draws, names or categories do not.

    Args:
        path: The file that is there; nothing is said of one that is not.
        drawn: Those that would replace it.

    Raises:
        BenchmarkError: A line of it names other images, or cannot be read.
    """
    if not path.exists():
        return
    for (category, draw), names in read_lists(path).items():
        other = [printable(name) for name in drawn.get((category, draw), names)]
        if any(ours != theirs for ours, theirs in zip(other, names, strict=False)):
            raise BenchmarkError(
                f"{path}: expected lists as they are drawn, got others of {category}, draw {draw}: they were changed "
                "by hand, or are of another copy. Choose another name, or give --force to replace them."
            )


def _parse(text: str, name: str) -> Lists:
    lists: dict[tuple[str, int], tuple[str, ...]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        category, *rest = line.rstrip().split("\t")
        different = all(rest) and len(set(rest[1:])) == len(rest) - 1
        if len(rest) < 2 or not re.fullmatch("[0-9]{1,9}", rest[0]) or not different:
            raise BenchmarkError(
                f"{name}, line {number}: expected a category, a draw and different file names, between single tabs."
            )
        if (category, int(rest[0])) in lists:
            raise BenchmarkError(
                f"{name}, line {number}: {category}, draw {rest[0]}, is on the list already. Remove one of the lines."
            )
        lists[category, int(rest[0])] = tuple(rest[1:])
    return lists


def by_hash(items: Iterable[Item], name: Callable[[Item], str], salt: str) -> list[Item]:
    """Items in an order that looks random and depends on nothing but their names and the salt.

    One image more or less, or another order of the folder, leaves all others where they are.
    """

    def place(item: Item) -> bytes:
        # The bytes of a file name that is no UTF-8 count as they are.
        return hashlib.sha256(f"{salt}/{name(item)}".encode(errors="surrogatepass")).digest()

    return sorted(items, key=place)


def support_names(
    names: Sequence[str], category: str, shots: int, draw: int, listed: Sequence[str] | None
) -> list[str]:
    """The file names of a support set.

    Args:
        names: Of all good training images.
        category: Product.
        shots: How many.
        draw: Number of the draw.
        listed: The names on a fixed list, which come first; names that the list is short of, and all where it is None,
            follow from a hash of the names.

    Raises:
        BenchmarkError: There are not enough images, or one of a list is not there.
    """
    first = _as_in_dataset(names, category, draw, (listed or ())[:shots])
    if len(names) < shots:
        raise BenchmarkError(
            f"{category}: expected {shots} good training images, got {len(names)}. Take fewer shots, or complete "
            "the dataset."
        )
    rest = by_hash(set(names) - set(first), str, f"{category}/{draw}")
    return [*first, *rest[: shots - len(first)]]


def _as_in_dataset(names: Sequence[str], category: str, draw: int, listed: Sequence[str]) -> list[str]:
    """Listed names as the dataset has them."""
    # A copy of the dataset may have been recompressed to another format.
    by_stem = {_stem(name): name for name in names}
    absent = [name for name in listed if _stem(name) not in by_stem]
    if absent:
        raise BenchmarkError(
            f"{category}: {absent[0]} is on the support list of draw {draw}, but not in the dataset. Complete the "
            "dataset, or give the plan your own lists with `support: FILE` (`fewshot-ad benchmark lists` writes one)."
        )
    return [by_stem[_stem(name)] for name in listed]


def _stem(name: str) -> str:
    """A name without suffix, as a list has it: a name that a list cannot hold as it is stands there escaped."""
    return printable(str(Path(name).with_suffix("")))


def list_hash(names: Sequence[str]) -> str:
    """sha256 of a list of names."""
    return hashlib.sha256("\n".join(names).encode(errors="surrogatepass")).hexdigest()
