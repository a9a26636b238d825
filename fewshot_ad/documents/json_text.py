"""JSON within bounds: no name twice, finite numbers, not nested without end."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from fewshot_ad.documents.reading import MAX_DEPTH
from fewshot_ad.errors import FewshotADError

# A string, with the colon behind it where it is a name; or a bracket. The parser says where a closing quote is missing.
_TOKEN = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*"?)(\s*:)?|([\[{])|([\]}])', re.DOTALL)


def parse_json(
    text: str, name: str, error: type[FewshotADError], what: str, line: int | None = None, fix: str = "Correct it"
) -> Any:
    """Read JSON.

    Args:
        text: The JSON.
        name: Of its file, for messages.
        error: Class of the errors.
        what: What it should be, for messages: `a list of products in JSON`.
        line: Where it stands in its file, from 1, if it is one line of many.
        fix: What to do about a file that nobody writes by hand, for messages.

    Raises:
        FewshotADError: Of the class `error`: it is no JSON, has a name twice in one object, a number that is not
            finite, or is nested deeper than `MAX_DEPTH`.
    """
    try:
        _check_tokens(text)
        return json.loads(text, parse_float=_finite, parse_constant=_refuse)
    except json.JSONDecodeError as reason:
        place = f", line {line or reason.lineno}, column {reason.colno}"
        raise error(f"{name}{place}: expected {what}, got something else ({reason.msg}). {fix}.") from reason
    except ValueError as reason:
        place = "" if line is None else f", line {line}"
        raise error(f"{name}{place}: expected {what}, got something else ({reason}). {fix}.") from reason


def _check_tokens(text: str) -> None:
    names: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        string, colon, opens, closes = token.groups()
        if opens:
            names.append(set())
            if len(names) > MAX_DEPTH:
                raise json.JSONDecodeError(f"more than {MAX_DEPTH} levels of lists and objects", text, token.start())
        elif closes and names:
            names.pop()
        elif string and colon and names:
            name = _name(string)
            if name in names[-1]:
                raise json.JSONDecodeError(f"the name {string} stands twice in one object", text, token.start())
            names[-1].add(name)


def _name(string: str) -> str:
    r"""What a string of JSON says: `"a"` and `"\u0061"` are one name. The parser says what is wrong with it."""
    try:
        return str(json.loads(string)) if "\\" in string else string[1:-1]
    except ValueError:
        return string


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number)


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number} is no finite number")
