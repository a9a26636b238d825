from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.similarity import msgms_map
from fewshot_ad.zoo.components.tensors import to_batch
from fewshot_ad.zoo.riad import RIAD, disjoint_masks, inpainted
from tests.conftest import make_part

SIDE = 32


def smooth_part(seed: int, defect: bool = False) -> np.ndarray:
    """A part without texture, which can be learned in a second; its defect is a dark square."""
    image = cv2.GaussianBlur(make_part(seed, size=64), (0, 0), 2)
    if defect:
        image[28:38, 42:52] = (30, 20, 140)
    return image


@pytest.fixture(scope="module")
def fitted() -> RIAD:
    method = create("riad", image_size=SIDE, cells=(2, 4), width=8, steps=60, learning_rate=3e-3, smoothing=3)
    method.fit([smooth_part(seed) for seed in range(5)])
    return method  # type: ignore[return-value]


def test_defect_scores_above_good_and_is_found(fitted: RIAD) -> None:
    predictions = fitted.predict([smooth_part(50), smooth_part(100, defect=True)])
    assert predictions.scores[1] > 1.5 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (64, 64))
    assert np.hypot(y - 33, x - 47) < 8


@pytest.mark.parametrize(("side", "cell"), [(64, 8), (64, 24)])
def test_every_pixel_is_hidden_once_and_in_whole_cells(side: int, cell: int) -> None:
    masks = disjoint_masks(side, cell, 3, torch.Generator().manual_seed(0))
    assert masks.shape == (3, 1, side, side)
    torch.testing.assert_close((1 - masks).sum(0), torch.ones(1, side, side))
    whole = masks[:, 0, ::cell, ::cell].repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :side, :side]
    torch.testing.assert_close(whole, masks[:, 0])


def test_a_pixel_is_painted_without_having_been_seen() -> None:
    """With a network that only copies, what is painted is gray everywhere."""
    batch = to_batch([make_part(0, size=SIDE)], SIDE)
    masks = disjoint_masks(SIDE, 4, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(inpainted(nn.Identity(), batch, masks), torch.full_like(batch, 0.5))


def test_map_is_the_smoothed_mean_over_cells_and_score_its_maximum(fitted: RIAD) -> None:
    image = cv2.resize(smooth_part(100, defect=True), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    batch, generator = to_batch([image], SIDE), torch.Generator().manual_seed(0)
    total = torch.zeros(SIDE, SIDE)
    assert fitted._network is not None
    with torch.no_grad():
        for cell in (2, 4):
            masks = disjoint_masks(SIDE, cell, 3, generator)
            total += msgms_map(inpainted(fitted._network, batch, masks), batch, 4)[0] / 2
    padded = np.pad(total.numpy(), 1, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    predictions = fitted.predict([image])
    assert predictions.maps is not None
    np.testing.assert_allclose(predictions.maps[0], windows.mean((2, 3)), rtol=1e-4)
    assert predictions.scores[0] == predictions.maps[0].max()


@pytest.mark.parametrize("wrong", [{"image_size": 40}, {"cells": ()}, {"cells": (2, 80)}, {"masks": 1}, {"scales": 9}])
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("riad", **wrong)
