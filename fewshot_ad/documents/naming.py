"""What to say of a name or value that is not one of those expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from fewshot_ad.printable import printable

# Of one value in a message; a plan may have a list of thousands where a number belongs.
_MAX_SHOWN = 80
# More names than these are not listed where one of them is probably meant.
_MAX_NAMES = 12


def unknown(name: str, names: Iterable[str], what: str = "a name", former: Mapping[str, str] | None = None) -> str:
    """What to say of a name that is none of those expected.

    Args:
        name: What is there.
        names: Those expected.
        what: What they are names of: `a baseline`.
        former: Names of earlier versions -> those of today.
    """
    known = sorted(names)
    renamed = (former or {}).get(name)
    if renamed in known:
        return f"expected {renamed!r}, as it is called since version 0.2, got its former name"
    likely = nearest(name, known)
    if likely is not None and len(known) > _MAX_NAMES:
        return f"expected {what}, got {shown(name)} (did you mean {likely!r}?)"
    expected = f"expected {what} among {', '.join(known)}" if known else "expected nothing here"
    return f"{expected}, got {shown(name)}" + (f" (did you mean {likely!r}?)" if likely else "")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that another one is probably a slip of; None if none is near."""
    return next(iter(difflib.get_close_matches(name, list(names), 1, 0.65)), None)


def shown(value: Any) -> str:
    """A value in a message: on one line, and not all of a long one."""
    text = printable("null" if value is None else repr(value))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
