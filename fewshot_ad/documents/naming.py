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
# Nor more than these at all.
_MAX_LISTED = 35
# Of a name that is taken for a part of another one; shorter ones are in too many.
_LEAST_PART = 3


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
    listed = ", ".join(known)
    if len(known) > _MAX_LISTED:
        listed = f"{', '.join(known[:_MAX_NAMES])} and {len(known) - _MAX_NAMES} more"
    expected = f"expected {what} among {listed}" if known else "expected nothing here"
    return f"{expected}, got {shown(name)}" + (f" (did you mean {likely!r}?)" if likely else "")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that another one is probably a slip or a part of; None if none is near."""
    known = list(names)
    # What a package's name leads, as `anomalib_` does.
    led = [one for one in known if one.casefold().endswith(f"_{name.casefold().replace('-', '_')}")]
    if len(led) == 1:
        return led[0]
    near = next(iter(difflib.get_close_matches(name, known, 1, 0.65)), None)
    if near is not None or len(name) < _LEAST_PART:
        return near
    part = name.casefold().replace("-", "_")
    return min((one for one in known if part in one.casefold()), key=len, default=None)


def shown(value: Any) -> str:
    """A value in a message: on one line, and not all of a long one."""
    text = printable("null" if value is None else repr(value))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
