from __future__ import annotations

import numpy as np

from fewshot_ad.zoo.components.confetti import confetti, malformed
from tests.conftest import make_part


def test_confetti_is_darker_squares_whose_size_follows_the_image() -> None:
    shares = []
    for side in (120, 240):
        noise = np.stack([confetti(side, np.random.default_rng(seed)) for seed in range(30)])
        assert noise.shape == (30, side, side, 3)
        assert noise.dtype == np.float32
        assert noise.max() <= 0
        assert noise.min() < -200
        assert np.all(noise.min((1, 2, 3)) < -20), "an image without confetti"
        shares.append(np.mean(noise < -20))
    # About one colored and one black square of 31 pixels on 240: 3 percent, and somewhat less at the edges.
    assert 0.01 < shares[1] < 0.08
    assert abs(shares[0] - shares[1]) < 0.01


def test_a_dark_part_gets_bright_confetti_and_any_other_dark() -> None:
    rng = np.random.default_rng(0)
    part, black = make_part(0), np.zeros((96, 96, 3), np.uint8)
    assert malformed(part, rng).mean() < part.mean()
    assert np.all(malformed(part, rng) <= part)
    assert malformed(black, rng).mean() > 0
