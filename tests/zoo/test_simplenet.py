from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from fewshot_ad.encoder.pyramid import local_average
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.shots import joined
from fewshot_ad.zoo.components.tensors import to_batch
from fewshot_ad.zoo.simplenet import Judge, SimpleNet, truncated_l1
from tests.conftest import make_part

SIDE = 96
SETTINGS = {"image_size": SIDE, "epochs": 40, "hidden": 128}


@pytest.fixture(scope="module")
def fitted() -> SimpleNet:
    method = create("simplenet", **SETTINGS)
    method.fit([make_part(seed, size=SIDE) for seed in range(5)])
    return method  # type: ignore[return-value]


def test_defect_scores_above_good_and_its_side_is_marked(fitted: SimpleNet) -> None:
    predictions = fitted.predict([make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)])
    assert predictions.scores[1] > predictions.scores[0] + 0.5
    assert predictions.maps is not None
    left, right = predictions.maps[1][:, : SIDE // 2], predictions.maps[1][:, SIDE // 2 :]
    assert right.mean() > left.mean() + 0.3


def test_loss_by_hand() -> None:
    good, noisy = torch.tensor([0.9, 0.2, -1.0]), torch.tensor([-0.8, -0.1])
    # Only what is on the wrong side of the margin counts: 0.3 and 1.5 of three, 0.4 of two.
    assert float(truncated_l1(good, noisy, 0.5)) == pytest.approx(1.8 / 3 + 0.4 / 2)


def test_score_is_the_largest_patch_of_the_map_before_smoothing(fitted: SimpleNet) -> None:
    image = make_part(100, size=SIDE, defect=True)
    features = joined([local_average(stage) for stage in fitted._network(to_batch([image], SIDE))])[0]
    patches = features.flatten(1).T.double().numpy()
    assert fitted._judge is not None
    state = {key: value.double().numpy() for key, value in fitted._judge.state_dict().items()}
    adapted = patches @ state["adapter.weight"].T + state["adapter.bias"]
    hidden = adapted @ state["discriminator.0.weight"].T + state["discriminator.0.bias"]
    hidden = (hidden - state["discriminator.1.running_mean"]) / np.sqrt(state["discriminator.1.running_var"] + 1e-5)
    hidden = hidden * state["discriminator.1.weight"] + state["discriminator.1.bias"]
    badness = -np.where(hidden > 0, hidden, 0.2 * hidden) @ state["discriminator.3.weight"][0]
    grid = badness.reshape(features.shape[1:]).astype(np.float32)
    predictions = fitted.predict([image])
    assert predictions.scores[0] == pytest.approx(grid.max(), rel=1e-3)
    heat = cv2.GaussianBlur(cv2.resize(grid, (SIDE, SIDE)), (0, 0), 4.0, borderType=cv2.BORDER_REFLECT_101)
    assert predictions.maps is not None
    np.testing.assert_allclose(predictions.maps[0], heat, atol=1e-3)


def test_noise_is_in_proportion_to_the_features(fitted: SimpleNet) -> None:
    # The published noise is next to nothing among this backbone's features, so no boundary is learned from it.
    good = [make_part(seed, size=SIDE) for seed in range(5)]
    published = create("simplenet", **SETTINGS | {"noise": 0.015})
    published.fit(good)
    levels = []
    for method in (fitted, published):
        maps = method.predict(good).maps
        assert maps is not None
        levels.append(float(np.mean(maps)))
    assert levels[0] < -0.4
    assert abs(levels[1]) < 0.2


def test_one_image_is_enough() -> None:
    method = create("simplenet", **SETTINGS | {"epochs": 20})
    method.fit([make_part(0, size=SIDE)])
    scores = method.predict([make_part(0, size=SIDE), make_part(0, size=SIDE, defect=True)]).scores
    assert scores[1] > scores[0]


def test_judge_keeps_positions_apart() -> None:
    torch.manual_seed(0)
    judge, features = Judge(6, 8).eval(), torch.randn(2, 6, 3, 4)
    with torch.no_grad():
        assert judge(features).shape == (2, 3, 4)
        one = judge(features[1:, :, 2:, 1:2])
        assert float(judge(features)[1, 2, 1]) == pytest.approx(float(one), rel=1e-5)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"hidden": 0}, {"noise": 0.0}, {"margin": 0.0}, {"sigma": -1.0}])
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("simplenet", **wrong)
