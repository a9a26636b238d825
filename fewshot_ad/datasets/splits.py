"""A split for the datasets that publish none."""

from __future__ import annotations

from collections.abc import Iterable


def held_out(groups: Iterable[str]) -> frozenset[str]:
    """The last fifth of the groups in sorted order: what is good there is tested, what is good elsewhere is trained on.

    All images of one part make one group, so that no part is on both sides. No randomness: names alone decide.

    Args:
        groups: Names, in any order, repeated or not.
    """
    ordered = sorted(set(groups))
    return frozenset(ordered[-max(1, len(ordered) // 5) :]) if len(ordered) > 1 else frozenset()
