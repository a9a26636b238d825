"""YAML within bounds: one document of plain values, no aliases, no name twice."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from fewshot_ad.documents.reading import MAX_DEPTH, Document, Place, read_text
from fewshot_ad.errors import FewshotADError

_TAG = "tag:yaml.org,2002:"
# The scalars of YAML 1.2, each with the characters that it may begin with. YAML 1.1, which PyYAML reads, takes 1:30 for
# 90, 010 for 8 and the names on, off, yes and no for booleans; here those are text.
_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("null", r"(?:~|null|Null|NULL|)", "~nN"),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    ("int", r"(?:[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+)", "-+0123456789"),
    (
        "float",
        r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        "-+.0123456789",
    ),
)


def loader_of(parser: type) -> Any:
    """A loader of PyYAML, whatever parses for it, that reads the scalars of YAML 1.2."""

    class Loader(parser):  # type: ignore[misc, valid-type]
        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    for name, pattern, first in _SCALARS:
        Loader.add_implicit_resolver(f"{_TAG}{name}", re.compile(f"{pattern}$"), [*first, *([""] * (name == "null"))])
    return Loader


# libyaml is ten times as fast, and says the same.
_LOADER: Any = loader_of(getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_yaml(path: Path, error: type[FewshotADError], what: str) -> Document:
    """Read a YAML file.

    Args:
        path: The file.
        error: Class of the errors.
        what: What the file should be, for messages: `a plan in YAML`.

    Raises:
        FewshotADError: Of the class `error`: it cannot be read, or is no YAML within the bounds.
    """
    return parse_yaml(read_text(path, error, what), str(path), error)


def parse_yaml(text: str, name: str, error: type[FewshotADError]) -> Document:
    """Read YAML.

    Names are text as it is written, `1` too. Values are those of YAML 1.2: `on`, `1:30`, `010` and a date are text.

    Args:
        text: The YAML.
        name: Of its file, for messages.
        error: Class of the errors.

    Raises:
        FewshotADError: Of the class `error`: it is no YAML, has anchors or aliases, a name twice, a tag, a number that
            is not finite, or is nested deeper than `MAX_DEPTH`; the message names line and column.
    """
    try:
        _check_events(text)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            reader = _Reader(loader)
            content = reader.value(node, ()) if node is not None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as reason:
        raise error(
            f"{name}{_line(text, reason)}: expected YAML, got something else ({_reason(reason)}). Correct it."
        ) from reason
    return Document(name, content, reader.lines)


def _check_events(text: str) -> None:
    """Go through the text without building anything: what it refuses would take memory, time or stack to build."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"the anchor or alias {event.anchor!r}; write out what it stands for",
                problem_mark=event.start_mark,
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                problem = f"more than {MAX_DEPTH} levels of lists and names"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Reader:
    """Values of nodes, and where they stand."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.lines: dict[Place, tuple[int, int]] = {}

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.lines[place] = node.start_mark.line + 1, node.start_mark.column + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            _expect_tag(node, "seq")
            return [self.value(item, (*place, number)) for number, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        _expect_tag(node, "map")
        content: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a list or names as a name", problem_mark=key.start_mark)
            below = (*place, key.value)
            if key.value in content:
                first = self.lines[below][0]
                problem = f"the name {key.value!r} again, which stands in line {first} already"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            content[key.value] = self.value(value, below)
            # A missing value is looked for where its name stands.
            self.lines[below] = key.start_mark.line + 1, key.start_mark.column + 1
        return content

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag == f"{_TAG}timestamp":
            return node.value
        _expect_tag(node, "null", "bool", "int", "float", "str")
        try:
            value = self._loader.construct_object(node)
        except ValueError as reason:
            # Python refuses numbers of thousands of digits.
            raise yaml.MarkedYAMLError(
                problem=f"a number that cannot be read ({reason})", problem_mark=node.start_mark
            ) from reason
        if isinstance(value, float) and not math.isfinite(value):
            raise yaml.MarkedYAMLError(
                problem=f"a number that is not finite, {node.value}", problem_mark=node.start_mark
            )
        return value


def _expect_tag(node: yaml.Node, *names: str) -> None:
    if node.tag not in {f"{_TAG}{name}" for name in names}:
        tag = node.tag.replace(_TAG, "!!")
        raise yaml.MarkedYAMLError(problem=f"the tag {tag}; leave it out", problem_mark=node.start_mark)


def _line(text: str, reason: yaml.YAMLError) -> str:
    mark = getattr(reason, "problem_mark", None) or getattr(reason, "context_mark", None)
    if mark is not None:
        return f", line {mark.line + 1}, column {mark.column + 1}"
    position = getattr(reason, "position", None)
    if position is None:
        return ""
    return f", line {text.encode()[:position].count(bytes([10])) + 1}"


def _reason(reason: yaml.YAMLError) -> str:
    if isinstance(reason, yaml.reader.ReaderError):
        return f"a character that YAML does not allow ({reason.reason})"
    problem = getattr(reason, "problem", None) or str(reason)
    context = getattr(reason, "context", None)
    return f"{problem} ({context})" if context else str(problem)
