"""Reads a text file within bounds, and remembers where each of its values stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fewshot_ad.errors import FewshotADError

# Far above what people write, and far below what takes seconds or much memory to read.
MAX_BYTES, MAX_DEPTH = 1_000_000, 32

Place: TypeAlias = "tuple[str | int, ...]"


@dataclass(frozen=True)
class Document:
    """What a file says.

    Attributes:
        name: Of the file, for messages.
        content: Mappings with text as keys, lists, text, finite numbers, booleans and None.
        lines: Line and column, from 1, of each value by the keys and indices that lead to it.
    """

    name: str
    content: Any
    lines: Mapping[Place, tuple[int, int]] = field(default_factory=dict)

    def line_and_column(self, place: Place) -> tuple[int, int] | None:
        """Where a value stands; of what is not there, where that stands which it should be in."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place)

    def where(self, place: Place) -> str:
        """File and line of a value, see `line_and_column`."""
        position = self.line_and_column(place)
        return self.name if position is None else f"{self.name}, line {position[0]}"


def read_text(path: Path, error: type[FewshotADError], what: str, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file in UTF-8, with or without byte order mark.

    Args:
        path: The file.
        error: Class of the errors.
        what: What the file should be, for messages: `a plan in YAML`.
        max_bytes: The most it may hold.

    Raises:
        FewshotADError: Of the class `error`: it cannot be read, is larger, or is no UTF-8.
    """
    try:
        with path.open("rb") as file:
            # Never more than that, whatever the file system says of its size: it may be a device.
            data = file.read(max_bytes + 1)
    except OSError as reason:
        raise error(f"expected {what} at {path}, cannot read it ({reason.strerror}). Check the path.") from reason
    if len(data) > max_bytes:
        raise error(f"{path}: expected {what} of at most {max_bytes:,} bytes, got more. Check the path.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = data.count(b"\n", 0, reason.start) + 1
        raise error(
            f"{path}, line {line}: expected {what}, got bytes that are no UTF-8 text. Check the path, or save the file "
            "as UTF-8."
        ) from reason
