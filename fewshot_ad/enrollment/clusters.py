"""Whether a support set shows two things: two products, two sides, two lightings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewshot_ad.arrays import Float64Array
from fewshot_ad.enrollment.embedding import StandIn

# Both are asked for. Of 100 draws of 8 good images, at most 2 came that far on any of 8 products; of 100 mixtures of
# two products, at least 98 did.
MIN_SILHOUETTE, MIN_GAP = 0.5, 1.3
EXAMPLES = 3


def notes_on_groups(stand_ins: Sequence[StandIn], names: Sequence[str]) -> tuple[str, ...]:
    """A note with example names where the images fall into two groups; none otherwise.

    Args:
        stand_ins: One per image.
        names: Their names, in the same order.
    """
    groups = two_groups(np.stack([_descriptor(stand_in) for stand_in in stand_ins])) if len(stand_ins) > 3 else None
    if groups is None:
        return ()
    shown = [
        f"{len(group)} such as {', '.join(names[i] for i in group[:EXAMPLES])}" for group in sorted(groups, key=len)
    ]
    return (
        f"the images fall into two groups: {shown[0]}; and {shown[1]}. Two products, two sides or two lightings? If "
        "both belong to it, give several images of each; otherwise enroll each group as a product of its own.",
    )


def two_groups(descriptors: Float64Array) -> tuple[list[int], list[int]] | None:
    """The two groups that vectors fall into, by average linkage; None where they are not clearly apart.

    Args:
        descriptors: (n, d), one vector per image.

    Returns:
        Positions of either group, two or more each: a single one is no group.
    """
    squared = np.square(descriptors).sum(axis=1)
    distances = np.sqrt(np.maximum(squared[:, None] + squared - 2 * descriptors @ descriptors.T, 0))
    first, second = _average_linkage(distances)
    if min(len(first), len(second)) < 2:
        return None
    gap = float(distances[np.ix_(first, second)].min())
    widest = max(_widest_link(distances[np.ix_(group, group)]) for group in (first, second))
    if gap < MIN_GAP * widest or _silhouette(distances, first, second) < MIN_SILHOUETTE:
        return None
    return first, second


def _descriptor(stand_in: StandIn) -> Float64Array:
    """Mean and spread of an image's patch embeddings: what it shows, wherever it shows it."""
    level = stand_in.levels[0].reshape(-1, stand_in.levels[0].shape[2]).astype(np.float64)
    return np.concatenate([level.mean(axis=0), level.std(axis=0)])


def _average_linkage(distances: Float64Array) -> tuple[list[int], list[int]]:
    """Join the two closest groups until two are left; the distance of groups is the mean over their pairs."""
    groups: list[list[int]] = [[i] for i in range(len(distances))]
    between = distances.copy()
    np.fill_diagonal(between, np.inf)
    while len(groups) > 2:
        at, other = sorted(divmod(int(between.argmin()), len(groups)))
        sizes = len(groups[at]), len(groups[other])
        row = np.average(between[[at, other]], axis=0, weights=sizes)
        row[at] = np.inf
        between[at], between[:, at] = row, row
        between = np.delete(np.delete(between, other, axis=0), other, axis=1)
        groups[at] += groups.pop(other)
    return sorted(groups[0]), sorted(groups[1])


def _widest_link(distances: Float64Array) -> float:
    """The longest edge of the minimum spanning tree: how far the members of a group are apart at most."""
    reached = distances[0].copy()
    left = set(range(1, len(distances)))
    widest = 0.0
    while left:
        nearest = min(left, key=lambda i: reached[i])
        widest = max(widest, float(reached[nearest]))
        left.remove(nearest)
        reached = np.minimum(reached, distances[nearest])
    return widest


def _silhouette(distances: Float64Array, first: Sequence[int], second: Sequence[int]) -> float:
    """Mean silhouette, -1..1.

    Source: Rousseeuw 1987.
    """
    values = []
    for own, other in ((first, second), (second, first)):
        within = distances[np.ix_(own, own)].sum(axis=1) / (len(own) - 1)
        across = distances[np.ix_(own, other)].mean(axis=1)
        values += list((across - within) / np.maximum(np.maximum(across, within), 1e-12))
    return float(np.mean(values))
