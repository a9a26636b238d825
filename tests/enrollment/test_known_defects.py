"""Patches of known defects: what is kept, and what is like them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewshot_ad import Inspector, read_image
from fewshot_ad.enrollment.known_defects import LIKE, defect_patches, like_defect, score_against, see
from tests.conftest import make_part


def test_the_score_is_that_of_an_inspection(inspector: Inspector) -> None:
    image = make_part(100, defect=True)
    seen = see(image, inspector.model, inspector.encoder)
    assert seen.score == pytest.approx(inspector.inspect(image).score, rel=1e-3)
    patches = defect_patches(seen, inspector.model, None, 64)
    # Patches at the image's edge count less in the score of an image.
    assert score_against(patches, inspector.model) == pytest.approx(seen.score, rel=0.15)


def test_patches_are_the_most_unusual_ones_of_the_region(inspector: Inspector) -> None:
    image = make_part(100, defect=True)
    seen = see(image, inspector.model, inspector.encoder)
    [bank] = inspector.banks
    [whole] = defect_patches(seen, inspector.model, None, 5)
    [inside] = defect_patches(seen, inspector.model, (84, 52, 24, 24), 5)
    [outside] = defect_patches(seen, inspector.model, (0, 0, 30, 30), 5)
    distances = [bank.nearest(patches) for patches in (whole, inside, outside)]
    assert all((np.diff(one) <= 1e-3).all() for one in distances)
    assert distances[1].mean() > 2 * distances[2].mean()
    np.testing.assert_array_equal(whole, whole.astype(np.float16))


def test_an_image_is_like_its_own_defect_and_good_ones_are_not(inspector: Inspector) -> None:
    model, encoder = inspector.model, inspector.encoder
    patches = defect_patches(see(make_part(100, defect=True), model, encoder), model, None, 64)
    assert like_defect(see(make_part(100, defect=True), model, encoder), model, patches) > 0.9
    assert like_defect(see(make_part(101, defect=True), model, encoder), model, patches) >= LIKE
    for seed in range(40, 46):
        assert like_defect(see(make_part(seed), model, encoder), model, patches) < LIKE


def test_bottles_broken_alike_are_like_each_other_and_good_ones_are_not(bottle: Path) -> None:
    inspector = Inspector.from_support(sorted((bottle / "train" / "good").iterdir())[:4], image_size=256)
    model, encoder = inspector.model, inspector.encoder

    def seen(path: Path) -> object:
        return see(read_image(path), model, encoder)

    broken = sorted((bottle / "test" / "broken_large").iterdir())[:6]
    patches = defect_patches(seen(broken[0]), model, None, 64)
    assert np.mean([like_defect(seen(path), model, patches) >= LIKE for path in broken[1:]]) >= 0.6
    good = sorted((bottle / "test" / "good").iterdir())
    assert max(like_defect(seen(path), model, patches) for path in good) < LIKE
