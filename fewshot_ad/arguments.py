"""Checks of arguments: a value of a wrong kind is refused where it comes in, in one sentence."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from fewshot_ad.errors import ArgumentError, FewshotADError, SupportSetError

ErrorClass = type[FewshotADError]

# What native libraries count in; no image is as wide.
MAX_SIDE = 2**31 - 1


def whole_number(
    value: Any, name: str, low: int, high: int | None = None, error: ErrorClass = ArgumentError, hint: str = ""
) -> int:
    """An argument that must be a whole number; numpy's count, True and False do not.

    Args:
        value: What was given.
        name: The argument's name.
        low: Smallest value.
        high: Largest value; None for no limit.
        error: Class of the error.
        hint: A further sentence for the message.

    Raises:
        FewshotADError: Of class `error`: it is none, or out of range.
    """
    whole = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if whole is None or whole < low or (high is not None and whole > high):
        span = f"of at least {low}" if high is None else f"in {low}..{high}"
        raise error(_message(f"{name} as a whole number {span}", value, hint))
    return whole


def number(
    value: Any,
    name: str,
    low: float,
    high: float = math.inf,
    *,
    low_counts: bool = True,
    error: ErrorClass = ArgumentError,
) -> float:
    """An argument that must be a finite number; numpy's count, True, False and text do not.

    Args:
        value: What was given.
        name: The argument's name.
        low: Smallest value.
        high: Largest value.
        low_counts: Whether the smallest value itself is allowed.
        error: Class of the error.

    Raises:
        FewshotADError: Of class `error`: it is none, or out of range.
    """
    plain = _as_float(value)
    # Infinity and NaN fail the comparisons.
    if not (low <= plain if low_counts else low < plain) or not plain <= min(high, sys.float_info.max):
        span = f"{'of at least' if low_counts else 'above'} {low:g}"
        span += f" and at most {high:g}" if high < math.inf else ""
        raise error(_message(f"{name} as a finite number {span}", value))
    return plain


def _as_float(value: Any) -> float:
    """A number as Python's float, NaN for what is none: a narrow one of numpy cannot be compared with any limit."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def flag(value: Any, name: str, error: ErrorClass = ArgumentError) -> bool:
    """An argument that must be True or False; numpy's count, other values that are true in Python do not.

    Args:
        value: What was given.
        name: The argument's name.
        error: Class of the error.

    Raises:
        FewshotADError: Of class `error`: it is neither, as the text "no" is not.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise error(_message(f"{name} as True or False", value))
    return bool(value)


def choice(value: Any, name: str, known: Sequence[str], error: ErrorClass = ArgumentError) -> None:
    """Refuse an argument that is not one of the known words.

    Raises:
        FewshotADError: Of class `error`.
    """
    if not isinstance(value, str) or value not in known:
        raise error(_message(f"{name} among {', '.join(map(repr, known))}", value))


def text(value: Any, name: str, longest: int, error: ErrorClass = ArgumentError) -> str:
    """An argument that must be text, not empty, and such that UTF-8 can hold it.

    Args:
        value: What was given.
        name: The argument's name.
        longest: Number of characters, at most.
        error: Class of the error.

    Raises:
        FewshotADError: Of class `error`.
    """
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise error(_message(f"{name} as text that is not empty and of at most {longest} characters", value))
    if not _is_unicode(value):
        raise error(_message(f"{name} as text in Unicode", value, "Write it anew: it holds bytes that are no UTF-8."))
    return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def file_name(value: Any, name: str, error: ErrorClass = ArgumentError) -> str | os.PathLike[str]:
    """An argument that must name a file: text or a Path, of characters that a path can hold.

    Raises:
        FewshotADError: Of class `error`.
    """
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or not _is_path(path):
        raise error(_message(f"{name} as the name of a file, as text or Path", value))
    return value


def _is_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def height_and_width(value: Any, name: str, error: ErrorClass = ArgumentError) -> tuple[int, int]:
    """An argument that must be a height and a width in pixels.

    Raises:
        FewshotADError: Of class `error`.
    """
    try:
        height, width = value
    except (TypeError, ValueError):
        raise error(_message(f"{name} as height and width in pixels, such as (480, 640)", value)) from None
    each = f"height and width in {name}"
    return whole_number(height, each, 1, MAX_SIDE, error), whole_number(width, each, 1, MAX_SIDE, error)


def function(value: Any, name: str) -> None:
    """Refuse an argument that is neither None nor can be called.

    Raises:
        ArgumentError: It is neither.
    """
    if value is not None and not callable(value):
        raise ArgumentError(_message(f"{name} as a function, or None", value))


def image_sources(images: Any, error: ErrorClass = SupportSetError) -> Any:
    """Images in any form, with what only looks like a list of images refused.

    Args:
        images: See `Inspector.from_support`.
        error: Class of the error.

    Returns:
        The same; a set of names in sorted order, since its own changes from run to run.

    Raises:
        FewshotADError: Of class `error`: a table or a mapping.
    """
    if isinstance(images, Mapping):
        raise error(_message("images as a folder, a glob or a list", images, "Give list(images.values())."))
    if hasattr(images, "columns") and not isinstance(images, (str, os.PathLike)):
        hint = "Give the column that holds the paths: df['path'].tolist()."
        raise error(f"expected images as a folder, a glob or a list, got a {type(images).__name__} (a table). {hint}")
    if isinstance(images, (set, frozenset)):
        images = sorted(images, key=str)
    return images


def _message(expected: str, value: Any, hint: str = "") -> str:
    shown = _repr(value)
    # The kind is what is wrong with most values; a long one is not shown at all.
    if not 0 < len(shown) <= 60 or "\n" in shown:
        shown = f"a {type(value).__name__}"
    elif isinstance(value, bool) or not isinstance(value, (str, int, float, type(None))):
        shown += f" ({type(value).__name__})"
    return f"expected {expected}, got {shown}.{' ' if hint else ''}{hint}"


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # a whole number of thousands of digits, or whatever an object of others raises
        return ""
