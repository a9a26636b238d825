"""Check of the progress that a method reports while it is fitted."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence


def assert_progress(calls: Sequence[tuple[str, int, int]]) -> None:
    """Stages are words, and each counts up to its total before the next begins; the last call is complete."""
    assert calls, "no progress was reported"
    for (stage, done, total), following in itertools.zip_longest(calls, calls[1:]):
        assert re.fullmatch(r"[a-z]+([ -][a-z]+)*", stage), f"{stage!r} is no word"
        assert 0 <= done <= total
        if done < total:
            assert following is not None, f"{stage} ended at {done} of {total}"
            assert (following[0], following[2]) == (stage, total), f"{stage} ended at {done} of {total}"
            assert following[1] > done, f"{stage} went from {done} to {following[1]}"
