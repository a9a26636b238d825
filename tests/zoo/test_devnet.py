from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import Labeled, Method, create
from fewshot_ad.zoo.components.deviation import top_mean
from fewshot_ad.zoo.components.tensors import to_batch
from tests.conftest import make_part

SETTINGS: dict[str, Any] = {"image_size": 64, "scales": 1, "steps": 45, "batch_size": 4, "learning_rate": 5e-4}
GOOD = [make_part(seed, size=64) for seed in range(4)]
NO_MASK = np.zeros((64, 64), bool)
LABELED = [Labeled(make_part(seed, size=64, defect=True), NO_MASK) for seed in (100, 101)]


@pytest.fixture(scope="module")
def fitted() -> Method:
    method = create("devnet", **SETTINGS)
    method.fit(GOOD, LABELED)
    return method


def test_defects_deviate_from_the_prior_and_good_images_do_not(fitted: Method) -> None:
    unseen = [make_part(50, size=64), make_part(51, size=64), make_part(102, size=64, defect=True)]
    scores = fitted.predict(unseen).scores
    # Scores count standard deviations of the prior, of which good images are to have none and anomalous ones five.
    assert max(scores[:2]) < 3 < 4.5 < scores[2]


def test_masks_are_not_needed() -> None:
    scores = []
    for masked in (False, True):
        method = create("devnet", **SETTINGS | {"steps": 2})
        method.fit(GOOD, [Labeled(item.image, ~item.mask if masked else item.mask) for item in LABELED])
        scores.append(method.predict(GOOD).scores)
    np.testing.assert_array_equal(scores[0], scores[1])


def test_backbone_is_trained_and_keeps_its_batch_statistics(fitted: Method) -> None:
    untrained = create("devnet", **SETTINGS)._build().backbone.state_dict()  # type: ignore[attr-defined]
    trained = fitted._scorer.backbone.state_dict()  # type: ignore[attr-defined]
    for name, before in untrained.items():
        assert torch.equal(before, trained[name]) == ("running" in name or "num_batches" in name), name


def test_maps_rise_where_the_defect_is(fitted: Method) -> None:
    twins = [make_part(102, size=64), make_part(102, size=64, defect=True)]
    maps = fitted.predict(twins).maps
    assert maps is not None
    y, x = np.unravel_index(int((maps[1] - maps[0]).argmax()), (64, 64))
    assert np.hypot(y - 32, x - 48) < 8


def test_patch_scores_as_maps_compare_between_images(fitted: Method) -> None:
    twins = [make_part(102, size=64), make_part(102, size=64, defect=True)]
    gradient = fitted.predict(twins)
    fitted.explanation = "patches"  # type: ignore[attr-defined]
    patches = fitted.predict(twins)
    fitted.explanation = "gradient"  # type: ignore[attr-defined]
    np.testing.assert_allclose(patches.scores, gradient.scores, rtol=1e-5)
    assert patches.maps is not None
    # Patches score alike to the image: the mean of the highest.
    assert patches.maps[1].max() == pytest.approx(patches.scores[1], rel=0.3)
    assert patches.maps[0].max() < 0.5 * patches.maps[1].max()


def test_map_is_the_scores_gradient(fitted: Method) -> None:
    fitted.sigma = 0.01  # type: ignore[attr-defined]
    image = make_part(102, size=64, defect=True)
    maps = fitted.predict([image]).maps
    assert maps is not None
    scorer, batch = fitted._scorer, to_batch([image], 64).double()  # type: ignore[attr-defined]
    scorer.double()
    y, x = np.unravel_index(int(maps[0].argmax()), (64, 64))
    slopes = []
    for channel in range(3):
        step = torch.zeros_like(batch)
        step[0, channel, y, x] = 1e-6
        up, down = (float(top_mean(scorer(b), 0.1)) for b in (batch + step, batch - step))
        slopes.append(abs(up - down) / 2e-6)
    scorer.float()
    assert maps[0].max() == pytest.approx(sum(slopes), rel=0.02)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch_size": 1}, {"top": 0}, {"image_size": 48}, {"sigma": 0}, {"explanation": "words"}],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("devnet", **wrong)
