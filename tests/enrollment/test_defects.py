from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad.enrollment.defects import blot, displaced_patch, missing_piece, random_defect, scratch


@pytest.mark.parametrize("shape", [(128, 128, 3), (60, 300, 3), (16, 16, 3)])
def test_defects_are_local_seeded_and_leave_the_original_alone(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = image.copy()
    for seed in range(30):
        drawn = random_defect(image, np.random.default_rng(seed))
        assert drawn.shape == shape
        assert drawn.dtype == np.uint8
        assert (drawn != image).any(axis=2).mean() < 0.35
        np.testing.assert_array_equal(drawn, random_defect(image, np.random.default_rng(seed)))
    np.testing.assert_array_equal(image, before)


def test_each_kind_changes_something() -> None:
    image = np.random.default_rng(0).integers(90, 110, (128, 128, 3), dtype=np.uint8)
    rng = np.random.default_rng(1)
    for drawn in (
        scratch(image, rng, 0.4, 0.01, 0.9),
        blot(image, rng, 0.1, 0.8),
        displaced_patch(image, rng, 0.1),
        missing_piece(image, rng, 0.1),
    ):
        assert 5 < (drawn != image).any(axis=2).sum() < 0.2 * 128 * 128
