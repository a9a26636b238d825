from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from fewshot_ad.zoo.components.poisson_patches import PoissonPatches, difference
from tests.conftest import make_part

SIDE = 96
ANYWHERE = PoissonPatches(
    patches=1, scales=(0.7, 1.3), mixed_gradients=False, background=None, least_object=0.5, least_overlap=0.25
)


def disk(seed: int) -> np.ndarray:
    """A dark, textured disk on a white ground."""
    texture = np.random.default_rng(seed).integers(20, 120, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(mask, (SIDE // 2, SIDE // 2), SIDE // 3, 1, -1)
    return np.where(mask[..., None] > 0, texture, np.uint8(250))


def test_a_patch_changes_one_rectangle_of_at_most_two_fifths() -> None:
    image, source = make_part(0, size=SIDE), make_part(1, size=SIDE)
    rng, sums = np.random.default_rng(0), []
    for _ in range(20):
        blended, change = ANYWHERE.blend(image, source, rng)
        rows, columns = np.nonzero((blended != image).any(2))
        assert max(np.ptp(rows), np.ptp(columns)) < round(0.4 * SIDE)
        labeled = np.nonzero(change)
        for axis, changed in zip(labeled, (rows, columns), strict=True):
            assert not len(axis) or changed.min() <= axis.min() <= axis.max() <= changed.max()
        sums.append(change.sum())
    # A patch that is hardly wider than the median filters, or looks like what is there, gets no label.
    assert np.mean(np.array(sums) > 0) > 0.6


def test_there_is_no_seam() -> None:
    # A patch brighter than the image: pasted, it would leave an edge; blended, its frame takes the image's color.
    image, source = np.full((SIDE, SIDE, 3), 90, np.uint8), np.full((SIDE, SIDE, 3), 200, np.uint8)
    blended, change = ANYWHERE.blend(image, source, np.random.default_rng(0))
    assert np.abs(blended.astype(int) - image).max() <= 1
    assert change.max() == 0


def test_with_a_background_patches_stay_on_the_object() -> None:
    on_object = dataclasses.replace(ANYWHERE, background=(250, 30), least_object=0.7)
    image, source = disk(0), disk(1)
    ground = cv2.erode((image.mean(2) == 250).astype(np.uint8), np.ones((9, 9))) > 0
    spilled = []
    for patches in (ANYWHERE, on_object):
        rng = np.random.default_rng(0)
        changes = [patches.blend(image, source, rng)[1] > 0 for _ in range(20)]
        spilled.append(sum((change & ground).sum() for change in changes) / sum(change.sum() for change in changes))
    assert spilled[1] < 0.5 * spilled[0]


def test_where_no_patch_fits_nothing_changes() -> None:
    nothing = dataclasses.replace(ANYWHERE, background=(90, 30))
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    blended, change = nothing.blend(image, image, np.random.default_rng(0))
    np.testing.assert_array_equal(blended, image)
    assert not change.any()


def test_difference_by_hand() -> None:
    image, other = np.full((32, 32, 3), 100, np.uint8), np.full((32, 32, 3), 100, np.uint8)
    other[4:24, 4:24] = (100, 130, 160)  # a mean difference of 30
    other[28, 28] = 250  # grain, which the median filter removes
    covered = np.ones((32, 32), bool)
    covered[:, 14:] = False
    change = difference(image, other, covered)
    assert change[14, 8] == 30
    assert change[14, 20] == 0  # not covered
    assert change[28, 28] == 0
    assert change[2, 2] == 0
