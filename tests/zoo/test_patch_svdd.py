from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.tensors import to_batch
from fewshot_ad.zoo.patch_svdd import SIDES, PatchSVDD, cut, jittered_pairs, neighboring_pairs, pulled_together
from tests.conftest import make_part

SIDE = 96
SETTINGS = {"image_size": SIDE, "dimensions": 16, "steps": 8, "batch_size": 4}


@pytest.fixture(scope="module")
def fitted() -> PatchSVDD:
    method = create("patch_svdd", **SETTINGS)
    method.fit([make_part(seed, size=SIDE) for seed in range(4)])
    return method  # type: ignore[return-value]


def test_defect_scores_above_good_and_is_found(fitted: PatchSVDD) -> None:
    predictions = fitted.predict([make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)])
    assert predictions.scores[1] > 1.3 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (SIDE, SIDE))
    assert np.hypot(y - SIDE / 2, x - 0.75 * SIDE) < 28


def test_map_is_the_product_of_the_distances_of_both_sizes(fitted: PatchSVDD) -> None:
    image = make_part(100, size=SIDE, defect=True)
    assert fitted._encoder is not None
    assert fitted._mean is not None
    assert fitted._banks is not None
    batch = to_batch([image], SIDE) - fitted._mean
    expected = np.ones((SIDE, SIDE))
    for grid, bank, patch, stride in zip(fitted._encoder.grids(batch), fitted._banks, (32, 64), (4, 16), strict=True):
        total, covering = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
        for i, j in np.ndindex(*grid.shape[2:]):
            nearest = np.linalg.norm(bank.vectors - grid[0, :, i, j].numpy(), axis=1).min()
            place = np.s_[stride * i : stride * i + patch, stride * j : stride * j + patch]
            total[place] += nearest
            covering[place] += 1
        expected *= total / covering
    predictions = fitted.predict([image])
    assert predictions.maps is not None
    np.testing.assert_allclose(predictions.maps[0], expected, rtol=1e-2, atol=1e-3 * expected.max())
    assert predictions.scores[0] == pytest.approx(predictions.maps[0].max())


def test_pairs_lie_where_the_paper_has_them() -> None:
    rng = np.random.default_rng(0)
    for patch, reach in ((64, 2), (32, 1)):
        first, second = jittered_pairs(500, 3, 512, patch, rng)
        inside = np.all((first[:, 1:] >= reach) & (first[:, 1:] <= 512 - patch - reach), axis=1)
        moves = (second - first)[inside]
        assert set(moves[:, 0]) == {0}
        assert np.abs(moves[:, 1:]).max() == reach
        assert np.abs(moves[:, 1:]).max(1).min() == 1
        (first, second), named = neighboring_pairs(500, 3, 512, patch, rng)
        inside = np.all((first[:, 1:] >= patch) & (first[:, 1:] <= 512 - 2 * patch), axis=1)
        moves = (second - first)[inside, 1:]
        np.testing.assert_array_equal(np.sign(moves), SIDES[named[inside]])
        away = np.abs(moves).max(1)
        assert away.min() >= 3 * patch // 4
        assert away.max() < patch
        assert set(named) == set(range(8))


def test_patches_are_cut_first_ones_first() -> None:
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).view(2, 3, 8, 8)
    patches = cut(images, np.array([[[0, 1, 2]], [[1, 3, 0]]]), 4)
    torch.testing.assert_close(patches, torch.stack([images[0, :, 1:5, 2:6], images[1, :, 3:7, 0:4]]))


def test_pull_by_hand() -> None:
    first, second = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert float(pulled_together(first, second)) == pytest.approx((5 + 1) / 2)


def test_a_strong_pull_draws_all_patches_together() -> None:
    spreads = []
    for pull in (1e-3, 100.0):
        method = create("patch_svdd", **SETTINGS | {"pull": pull, "learning_rate": 3e-3})
        method.fit([make_part(0, size=SIDE)])
        spreads.append(float(method._banks[1].vectors.std(0).mean()))  # type: ignore[attr-defined]
    assert spreads[1] < 0.7 * spreads[0]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"image_size": 100}, {"image_size": 48}, {"pull": -1.0}])
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("patch_svdd", **wrong)
