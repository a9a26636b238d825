"""The split of datasets that are published without one."""

from __future__ import annotations

from collections.abc import Iterable


def held_out(groups: Iterable[str]) -> frozenset[str]:
    """The last fifth of the groups in sorted order, whose good images belong to the test split, the others to training.

    All images of one part form one group, so that no part is in both splits. The names alone decide; nothing is random.

    Args:
        groups: Names of the groups, in any order; repetitions count once.
    """
    ordered = sorted(set(groups))
    return frozenset(ordered[-max(1, len(ordered) // 5) :]) if len(ordered) > 1 else frozenset()
