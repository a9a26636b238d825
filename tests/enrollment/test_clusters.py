"""Two products in one folder are told, with names; one product never is."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.clusters import two_groups
from tests.conftest import real_part


def around(center: float, count: int, seed: int) -> np.ndarray:
    return center + np.random.default_rng(seed).normal(0, 1, (count, 16))


@pytest.mark.parametrize(("first", "second"), [(4, 4), (2, 6), (30, 10)])
def test_two_groups_are_found_whatever_their_order(first: int, second: int) -> None:
    both = np.concatenate([around(0, first, 0), around(8, second, 1)])
    order = np.random.default_rng(2).permutation(first + second)
    groups = two_groups(both[order])
    assert groups is not None
    assert {frozenset(int(order[i]) for i in group) for group in groups} == {
        frozenset(range(first)),
        frozenset(range(first, first + second)),
    }


def test_one_group_is_not_split() -> None:
    assert [two_groups(around(0, count, count)) for count in (4, 8, 40)] == [None] * 3


def test_a_single_odd_one_and_identical_images_are_no_groups() -> None:
    assert two_groups(np.concatenate([around(0, 7, 0), around(50, 1, 1)])) is None
    assert two_groups(np.ones((4, 3))) is None


def test_two_products_are_named_and_none_is_left_out(parts: list[np.ndarray], encoder: Encoder) -> None:
    bricks = [real_part(place, 128) for place in range(3)]
    mixed = Inspector.from_support([*parts[:3], *bricks], encoder=encoder, views="hflip", image_size=128)
    (note,) = mixed.enrollment.notes
    assert "two groups: 3 such as image[0], image[1], image[2]; and 3 such as image[3]" in note
    assert len(mixed.enrollment.support) == 6
