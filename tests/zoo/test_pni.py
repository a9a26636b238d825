from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.patch_context import neighborhoods
from fewshot_ad.zoo.components.tensors import to_batch
from fewshot_ad.zoo.pni import nearest_likely
from tests.conftest import make_part

SETTINGS: dict[str, Any] = {"image_size": 64, "clusters": 16, "dims": 16, "hidden": 32, "epochs": 5}
SETTINGS |= {"neighborhood": 3, "patch": 3}


def two_halves(seed: int, mirrored: bool = False) -> np.ndarray:
    """Fine texture, dark on the left and bright on the right, or the other way round."""
    shade = np.where(np.arange(128) < 64, 60.0, 190.0)
    noise = np.random.default_rng(seed).normal(0, 8, (128, 128, 3))
    return np.clip((shade[::-1] if mirrored else shade)[None, :, None] + noise, 0, 255).astype(np.uint8)


def test_defect_scores_above_good_and_is_found() -> None:
    method = create("pni", **SETTINGS | {"image_size": 96})
    method.fit([make_part(seed, size=96) for seed in range(5)])
    predictions = method.predict([make_part(50, size=96), make_part(100, size=96, defect=True)])
    assert predictions.scores[1] > 1.3 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (96, 96))
    assert np.hypot(y - 48, x - 72) < 16


def test_what_is_good_elsewhere_is_found_where_it_does_not_belong() -> None:
    # The first stage alone sees so little of the image that halves look alike wherever they are.
    method: Any = create("pni", **SETTINGS | {"stages": (1,), "image_size": 128, "decay": 1.0, "epochs": 1})
    method.fit([two_halves(seed) for seed in range(3)])
    ratios = []
    for image in (two_halves(7), two_halves(8, mirrored=True)):
        grid = method._embed(to_batch([image], 128)).permute(0, 2, 3, 1).flatten(0, 2)
        anywhere = torch.cdist(grid, method._good.representatives).amin(1)
        by_position = nearest_likely(torch.cdist(grid, method._good.representatives), method._good.likely)
        ratios.append(float((by_position / anywhere).mean()))
        assert method.predict([image]).scores[0] >= anywhere.max()
    assert ratios[0] < 1.2
    assert ratios[1] > 1.5


def test_score_is_the_mean_of_the_distances_to_what_is_likely() -> None:
    method: Any = create("pni", **SETTINGS | {"sigma": 0, "decay": 0.5, "threshold": 0.3, "temperature": 3.0})
    method.fit([make_part(seed, size=64) for seed in range(3)])
    image = make_part(100, size=64, defect=True)
    good = method._good
    grid = method._embed(to_batch([image], 64))[0].flatten(1).T
    padded = method._padded(grid.view(1, 8, 8, -1))
    with torch.no_grad():
        logits = method._perceptron(neighborhoods(padded, torch.arange(64), 3)).double().numpy()[:, : good.count]
    probability = np.exp(logits / 3.0) / np.exp(logits / 3.0).sum(1, keepdims=True)
    representatives = good.representatives.double().numpy()
    scores = []
    for patch in range(64):
        distances = np.linalg.norm(grid[patch].double().numpy() - representatives, axis=1)
        by_neighbors = probability[patch, good.classes.numpy()] > 0.3 / len(representatives)
        parts = [
            distances[likely].min() if likely.any() else distances.max()
            for likely in (by_neighbors, good.likely[patch].numpy())
        ]
        scores.append(0.5 * sum(parts) / 2)
    assert method.predict([image]).scores[0] == pytest.approx(max(scores), rel=1e-4)


def test_where_nothing_is_likely_the_farthest_counts() -> None:
    distances = torch.tensor([[3.0, 1.0, 5.0], [3.0, 1.0, 5.0]])
    likely = torch.tensor([[True, False, True], [False, False, False]])
    assert nearest_likely(distances, likely).tolist() == [3.0, 5.0]


@pytest.mark.parametrize(
    "wrong",
    [{"coreset_ratio": 0}, {"patch": 4}, {"neighborhood": 1}, {"layers": 1}, {"dims": 0}, {"temperature": 0}],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("pni", **wrong)
