from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import Labeled
from fewshot_ad.zoo.components.deviation import (
    PRIOR_SCORES,
    deviation_loss,
    draws,
    joined_maps,
    top_mean,
    training_images,
    turned,
)
from tests.conftest import make_part


def test_deviation_loss_by_hand() -> None:
    scores, anomalous = np.array([0.5, 2.0, 3.0, 9.0]), np.array([False, False, True, True])
    prior = torch.randn(PRIOR_SCORES, generator=torch.Generator().manual_seed(1)).numpy()
    z = (scores - prior.mean()) / prior.std(ddof=1)
    expected = np.where(anomalous, np.maximum(0, 5 - z), np.abs(z)).mean()
    loss = deviation_loss(torch.tensor(scores), torch.tensor(anomalous), torch.Generator().manual_seed(1))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_score_is_the_mean_of_the_highest_tenth_of_each_scale() -> None:
    fine, coarse = torch.arange(100.0).view(1, 10, 10), torch.tensor([[[1.0, 7.0], [2.0, 3.0]]])
    # Ten of a hundred patches, and of four the one that always counts.
    assert float(top_mean([fine, coarse], 0.1)) == pytest.approx((94.5 + 7) / 2)


def test_maps_of_several_scales_are_averaged_on_the_finest_grid() -> None:
    heat = joined_maps([torch.full((1, 4, 4), 1.0), torch.full((1, 2, 2), 3.0)])
    assert heat.shape == (1, 4, 4)
    assert torch.allclose(heat, torch.tensor(2.0))


def test_turned_images_keep_their_center_and_differ_in_angle() -> None:
    image = torch.zeros(1, 3, 33, 33)
    image[..., 16, 16] = 1.0
    image[..., 16, 26] = 0.5
    copies = turned(image.repeat(2, 1, 1, 1), torch.Generator().manual_seed(0))
    assert torch.allclose(copies[..., 16, 16], torch.tensor(1.0), atol=0.01)
    assert float((copies[0] - copies[1]).abs().max()) > 0.2


def test_every_image_comes_before_any_comes_again() -> None:
    draw = draws(torch.arange(3), torch.Generator().manual_seed(0))
    drawn = torch.cat([draw(2), draw(4)])
    assert sorted(drawn[:3].tolist()) == sorted(drawn[3:].tolist()) == [0, 1, 2]


def test_both_kinds_of_images_are_needed() -> None:
    part = make_part(0, size=48)
    bad = Labeled(part, np.zeros((48, 48), bool))
    assert [len(kind) for kind in training_images("devnet", [part] * 2, [bad], 32)] == [2, 1]
    with pytest.raises(ZooError, match="devnet: expected at least one labeled image"):
        training_images("devnet", [part], [], 32)
    with pytest.raises(ZooError, match="good part"):
        training_images("devnet", [], [bad], 32)
