from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from fewshot_ad.encoder.pyramid import local_average
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.shots import joined
from fewshot_ad.zoo.components.tensors import Backbone, to_batch
from fewshot_ad.zoo.patchcore import PatchCore
from tests.conftest import make_part

SIDE = 96


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=SIDE) for seed in range(5)]


@pytest.fixture(scope="module")
def fitted(good: list[np.ndarray]) -> PatchCore:
    method = create("patchcore", image_size=SIDE, sigma=0)
    method.fit(good)
    return method  # type: ignore[return-value]


def patches_of(image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        features = joined([local_average(f) for f in Backbone("resnet18", (2, 3))(to_batch([image], SIDE))])
    return features[0].flatten(1).T.numpy()


@pytest.mark.parametrize("backbone", ["resnet18", "lite0"])
def test_defect_scores_above_good_and_is_found(good: list[np.ndarray], backbone: str) -> None:
    method = create("patchcore", image_size=SIDE, backbone=backbone)
    method.fit(good)
    predictions = method.predict([make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)])
    assert predictions.scores[1] > 1.5 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (SIDE, SIDE))
    assert np.hypot(y - SIDE / 2, x - 0.75 * SIDE) < 12


def test_map_is_the_distance_to_the_nearest_and_score_is_equation_7(fitted: PatchCore) -> None:
    image = make_part(100, size=SIDE, defect=True)
    predictions = fitted.predict([image])
    bank = fitted._bank.vectors.astype(np.float64)  # type: ignore[union-attr]
    patches = patches_of(image).astype(np.float64)
    distances = np.linalg.norm(patches[:, None] - bank[None], axis=2)
    grid = distances.min(1).reshape(SIDE // 8, SIDE // 8).astype(np.float32)
    assert predictions.maps is not None
    np.testing.assert_allclose(predictions.maps[0], cv2.resize(grid, (SIDE, SIDE)), rtol=1e-3, atol=1e-3)
    worst = int(distances.min(1).argmax())
    star = int(distances[worst].argmin())
    around = np.argsort(np.linalg.norm(bank - bank[star], axis=1))[:9]
    weight = 1 - np.exp(distances[worst, star]) / np.exp(distances[worst, around]).sum()
    assert predictions.scores[0] == pytest.approx(weight * distances[worst, star], rel=1e-3)


def test_what_a_view_mirrors_in_is_left_out_of_the_bank(good: list[np.ndarray]) -> None:
    counts = {}
    for views in ("none", "hflip", "rotate=45"):
        method = create("patchcore", image_size=SIDE, views=views, coreset_ratio=1.0)
        method.fit(good[:1])
        counts[views] = len(method._bank)  # type: ignore[attr-defined]
    patches = (SIDE // 8) ** 2
    assert counts["none"] == patches
    assert counts["hflip"] == 2 * patches
    assert 1.4 * patches < counts["rotate=45"] < 1.9 * patches


def test_coreset_keeps_a_tenth(fitted: PatchCore) -> None:
    # Five images with two flips and a turn by 180 degrees, of which patches on the border may be cut.
    assert len(fitted._bank) == pytest.approx(0.1 * 5 * 4 * (SIDE // 8) ** 2, rel=0.1)  # type: ignore[arg-type]


def test_one_image_is_enough(good: list[np.ndarray]) -> None:
    method = create("patchcore", image_size=SIDE)
    method.fit(good[:1])
    scores = method.predict([make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)]).scores
    assert scores[1] > scores[0]


def test_a_defect_that_nobody_noticed_among_the_good_images_is_found_with_trim(good: list[np.ndarray]) -> None:
    odd = make_part(30, size=SIDE, defect=True)

    def contrast(trim: float) -> float:
        method = create("patchcore", image_size=SIDE, trim=trim, coreset_ratio=1.0)
        method.fit([*good, odd])
        bad, fine = method.predict([odd, make_part(50, size=SIDE)]).scores
        return float(bad / fine)

    assert contrast(0.0) < 0.1, "it is in the bank"
    assert contrast(0.1) > 1.2


@pytest.mark.parametrize(
    "wrong", [{"coreset_ratio": 0}, {"neighbors": 1}, {"trim": 0.6}, {"views": "auto"}, {"views": "rotate=x"}]
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("patchcore", **wrong)


def test_a_backbone_without_weights_is_refused() -> None:
    with pytest.raises(WeightsError, match="no weights are at hand"):
        create("patchcore", backbone="resnet34")
