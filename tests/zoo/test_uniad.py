from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.uniad import Rebuilder, UniAD, jittered, neighbor_mask
from tests.conftest import make_part

SIDE = 64
SETTINGS = {"image_size": SIDE, "stages": (1, 2), "neighbors": 3, "width": 64, "layers": 1, "heads": 2}


@pytest.fixture(scope="module")
def fitted() -> UniAD:
    method = create("uniad", **SETTINGS, steps=40)
    method.fit([make_part(seed, size=SIDE) for seed in range(5)])
    return method  # type: ignore[return-value]


def test_defect_scores_above_good_and_is_found(fitted: UniAD) -> None:
    predictions = fitted.predict([make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)])
    assert predictions.scores[1] > 1.05 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (SIDE, SIDE))
    assert np.hypot(y - SIDE / 2, x - 0.75 * SIDE) < 10


def test_training_brings_what_is_rebuilt_closer() -> None:
    good = [make_part(seed, size=SIDE) for seed in range(2)]
    scores = []
    for steps in (1, 20):
        method = create("uniad", **SETTINGS, steps=steps)
        method.fit(good)
        scores.append(method.predict(good).scores.mean())
    assert scores[1] < 0.8 * scores[0]


def test_neighbor_mask_by_hand() -> None:
    mask = neighbor_mask(4, 3).view(4, 4, 4, 4)
    for y, x, v, u in np.ndindex(4, 4, 4, 4):
        assert bool(mask[y, x, v, u]) == (abs(y - v) <= 1 and abs(x - u) <= 1)


def test_a_place_is_rebuilt_from_places_that_are_no_neighbors() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rebuilder = Rebuilder(6, 5, 8, layers=1, heads=2, dropout=0.0, neighbors=3).eval()
        encoded = torch.randn(1, 25, 8, requires_grad=True)
    positions = torch.zeros(25, 8)
    rebuilt = rebuilder.decoder[0](rebuilder.queries[:1], [encoded, encoded], positions, rebuilder.mask)
    (slopes,) = torch.autograd.grad(rebuilt[0, 12].square().sum(), encoded)
    seen = slopes[0].abs().amax(1).view(5, 5) > 0
    assert not seen[1:4, 1:4].any()
    assert int(seen.sum()) == 16


def test_jitter_is_as_strong_as_the_norm_over_the_length() -> None:
    tokens = torch.tensor([3.0, 4.0]).repeat(1, 50_000, 1)
    noise = jittered(tokens, 20.0, torch.Generator().manual_seed(0)) - tokens
    assert float(noise.std()) == pytest.approx(20 * 5 / 2, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.6)


def test_score_is_the_largest_local_mean_of_the_map(fitted: UniAD) -> None:
    predictions = fitted.predict([make_part(100, size=SIDE, defect=True)])
    assert predictions.maps is not None
    means = np.lib.stride_tricks.sliding_window_view(predictions.maps[0], (16, 16)).mean((2, 3))
    assert predictions.scores[0] == pytest.approx(means.max(), rel=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"neighbors": 6}, {"neighbors": 15}, {"image_size": 230}, {"heads": 3}, {"dropout": 1.0}, {"pooling": 0}]
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("uniad", **wrong)
