"""Images that do not belong into a support set are left out and named; good ones stay."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.hygiene import deviation, differs_as_a_whole, find_outliers, notes_on
from tests.conftest import make_part

ALIKE = [1.0, 1.05, 0.97, 1.02, 0.99, 1.04, 1.01]
NAMES = [f"{i}.png" for i in range(8)]


@pytest.fixture(scope="module")
def contaminated() -> list[np.ndarray]:
    """Five good parts and a defective one in third place."""
    parts = [make_part(seed) for seed in range(5)]
    return [*parts[:2], make_part(100, defect=True), *parts[2:]]


@pytest.fixture(scope="module")
def cleaned(contaminated: list[np.ndarray], encoder: Encoder) -> Inspector:
    return Inspector.from_support(contaminated, encoder=encoder, views="hflip", image_size=128)


@pytest.mark.parametrize("position", range(8))
def test_one_far_score_is_found_in_any_position(position: int) -> None:
    scores = [*ALIKE[:position], 1.9, *ALIKE[position:]]
    assert find_outliers(scores, drawn_score=1.8) == (position,)


def test_a_score_is_left_out_only_if_it_is_near_drawn_defects() -> None:
    assert find_outliers([*ALIKE, 1.9], drawn_score=4.0) == ()
    (note,) = notes_on([*ALIKE, 1.9], 4.0, NAMES, (), kept=False)
    assert "kept, but look at it: 7.png" in note


def test_two_bad_ones_do_not_hide_each_other() -> None:
    assert find_outliers([*ALIKE[:6], 2.6, 1.9], drawn_score=1.5) == (6, 7)


def test_of_a_product_that_varies_no_more_than_a_quarter_is_lost() -> None:
    scores = [1.0, 1.01, 0.99, 1.02, 1.0, 4.0, 9.0, 20.0]
    assert find_outliers(scores, drawn_score=1.5) == ()
    (note,) = notes_on(scores, 1.5, NAMES, (), kept=False)
    assert note.startswith("3 of 8 images look unlike the others, too many to leave them out: 7.png, 6.png, 5.png")


def test_an_image_that_differs_as_a_whole_is_kept_and_named() -> None:
    typical = [0.5, 0.52, 0.49, 0.5, 0.51, 0.5, 0.48, 0.7]
    assert differs_as_a_whole(typical, 7)
    assert not differs_as_a_whole([*typical[:7], 0.58], 7)
    # No variant, but another thing.
    assert not differs_as_a_whole([*typical[:7], 1.2], 7)
    (note,) = notes_on([*ALIKE, 1.9], 1.8, NAMES, (), kept=False, variants=(7,))
    assert note.startswith("kept, but look at it: 7.png is unlike the others as a whole")


def test_a_photograph_that_is_blurred_as_a_whole_is_kept_and_named(parts: list[np.ndarray], encoder: Encoder) -> None:
    odd = cv2.GaussianBlur(parts[0], (0, 0), 2)
    mixed = Inspector.from_support([*parts, odd], encoder=encoder, views="hflip", image_size=128)
    assert len(mixed.enrollment.support) == 6
    assert any("as a whole" in note for note in mixed.enrollment.notes)


def test_few_images_are_all_kept() -> None:
    assert find_outliers([1.0, 1.0, 9.0], drawn_score=1.5) == ()
    assert "kept, but look at it: 2.png" in notes_on([1.0, 1.0, 9.0], 1.5, NAMES[:3], (), kept=False)[0]
    assert "of two images" in notes_on([1.0, 9.0], 1.5, NAMES[:2], (), kept=False)[0]


def test_the_same_distance_says_less_where_the_others_vary_more() -> None:
    varied = [score ** (4 * (-1) ** i) for i, score in enumerate([1.1, 1.2, 1.05, 1.15, 1.1, 1.2, 1.1])]
    assert deviation(1.9, ALIKE) > 2 * deviation(1.9, varied) > 0
    # Scores that are all the same do not make any other one infinitely far.
    assert deviation(1.1, [1.0] * 7) == pytest.approx(math.log(1.1) / 0.08 / math.sqrt(4 / 8))


def test_a_defective_image_is_left_out_of_bank_and_threshold(
    cleaned: Inspector, contaminated: list[np.ndarray], parts: list[np.ndarray], encoder: Encoder
) -> None:
    assert [name for name, _ in cleaned.enrollment.support] == [f"image[{i}]" for i in (0, 1, 3, 4, 5)]
    assert "left out of bank and threshold, unlike the others: image[2]" in cleaned.enrollment.notes[0]
    alone = Inspector.from_support(parts, encoder=encoder, views="hflip", image_size=128)
    assert cleaned.threshold == pytest.approx(alone.threshold, rel=1e-5)
    np.testing.assert_array_equal(cleaned.banks[0].vectors, alone.banks[0].vectors)
    assert len(cleaned.references) == cleaned.calibration.n == 5
    assert cleaned.inspect(contaminated[2]).is_anomalous


def test_it_is_kept_if_asked_for_and_named_all_the_same(contaminated: list[np.ndarray], encoder: Encoder) -> None:
    kept = Inspector.from_support(contaminated, encoder=encoder, views="hflip", image_size=128, keep_outliers=True)
    assert kept.calibration.n == len(kept.enrollment.support) == 6
    assert "kept as asked, though unlike the others: image[2]" in kept.enrollment.notes[0]
    assert not kept.inspect(contaminated[2]).is_anomalous


def test_good_images_are_all_kept(inspector: Inspector) -> None:
    assert len(inspector.enrollment.support) == 5
    assert not [note for note in inspector.enrollment.notes if "unlike" in note]
