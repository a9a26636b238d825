"""Noise on features that suits their size."""

from __future__ import annotations

import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create, differences
from fewshot_ad.zoo.anomalib.runtime.feature_noise import RelativeNoise


@pytest.mark.parametrize("size", [0.1, 30.0])
def test_the_noise_is_a_share_of_the_features(size: float) -> None:
    torch.manual_seed(0)
    features = size * torch.randn(4, 32, 32, 32)
    noise = RelativeNoise(0.2, threshold=0.0)
    noisy, adapted, masks, labels = noise(features, 5 * features, torch.zeros(4, 1, 32, 32), torch.zeros(4))
    assert noisy.shape == adapted.shape == (8, 32, 32, 32), "each once more, for those without noise"
    changed = masks.expand_as(noisy) > 0
    added = (noisy - torch.cat([features, features]))[changed]
    assert float(added.std()) == pytest.approx(0.2 * size, rel=0.05)
    assert torch.equal(labels, masks.flatten(1).any(1).float())
    # Of what is adapted alone, where the score is of that, too.
    _, adapted, masks, _ = noise(None, 5 * features, torch.zeros(4, 1, 32, 32), torch.zeros(4))
    added = (adapted - 5 * torch.cat([features, features]))[masks.expand_as(adapted) > 0]
    assert float(added.std()) == pytest.approx(size, rel=0.05)


def test_the_published_noise_can_be_had_and_is_told_apart() -> None:
    assert any("noise" in words for words in differences("anomalib_supersimplenet", {}))
    assert not any("noise" in words for words in differences("anomalib_supersimplenet", {"noise": 0.015}))
    with pytest.raises(ZooError, match="noise above 0, got -1"):
        create("anomalib_supersimplenet", noise=-1.0)
