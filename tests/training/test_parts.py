import itertools

import numpy as np
import pytest

from fewshot_ad.errors import TrainingError
from fewshot_ad.training.parts import CATEGORIES, render, render_placed


def test_there_are_at_least_24_categories():
    assert len(CATEGORIES) >= 24


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_category_renders_images(category):
    one, again, other = render(category, 0, 96), render(category, 0, 96), render(category, 1, 96)
    assert one.shape == (96, 96, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, again), "the same seed gives the same image"
    assert not np.array_equal(one, other), "two parts are never identical"
    assert one.std() > 4, "there is something to see"
    assert 5 < one.mean() < 250, "neither black nor burnt out"


def test_parts_of_one_product_are_more_alike_than_products():
    """In color and brightness; the pose may be anything."""

    def looks(category, seed, variant):
        image = render(category, seed, 96, variant=variant).reshape(-1, 3).astype(float)
        return np.concatenate([np.quantile(image, q, axis=0) for q in (0.1, 0.5, 0.9)])

    nearer = 0
    for category in CATEGORIES:
        same = np.abs(looks(category, 0, 0) - looks(category, 1, 0)).mean()
        different = np.mean([np.abs(looks(category, 0, 0) - looks(category, 0, v)).mean() for v in (1, 2, 3)])
        nearer += same < different
    assert nearer >= 0.9 * len(CATEGORIES)


def test_the_part_does_not_depend_on_the_resolution():
    small, large = render("gear", 3, 64), render("gear", 3, 128)
    halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), halved.ravel())[0, 1] > 0.9


def test_an_unknown_category_is_refused():
    with pytest.raises(TrainingError, match="washer"):
        render("unicorn", 0)


def test_a_tiny_size_is_refused():
    with pytest.raises(TrainingError, match="32"):
        render("gear", 0, 8)


def test_a_placement_can_be_asked_for():
    def apart(placement):
        images = [render("key", seed, 96, variant=3, placement=placement).astype(int) for seed in range(4)]
        return np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(images)])

    assert apart("free") > 1.5 * apart("fixed")


def test_a_damaged_part_differs_where_it_was_damaged_and_its_relief_with_it():
    def dented(canvas):
        canvas.relief(-0.2 * canvas.cover(canvas.radius - 0.3, soft=20))

    good = render_placed("tablet", 0, 96, variant=90_001)
    bad = render_placed("tablet", 0, 96, variant=90_001, damage=dented)
    lowered = good.height - bad.height
    assert lowered.max() == pytest.approx(0.2, abs=1e-3)
    assert np.array_equal(good.cover, bad.cover)
    assert np.array_equal(good.transform, bad.transform)
    changed = np.abs(good.image.astype(int) - bad.image.astype(int)).max(axis=2) > 0
    assert changed[lowered > 0.1].mean() > 0.3, "a slope is lit in another way"
    assert not changed[:20].any(), "the sensor's noise is that of the good part, as the damage took no random numbers"
