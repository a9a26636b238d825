from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.similarity import msgms_map
from fewshot_ad.zoo.components.tensors import to_batch
from fewshot_ad.zoo.intra import InTra, _Block, inpainted, window_positions
from tests.conftest import make_part

SETTINGS = {"image_size": 32, "patch_size": 4, "window": 3, "width": 32, "blocks": 2, "heads": 2, "scales": 2}


def smooth_part(seed: int, defect: bool = False) -> np.ndarray:
    """A part without texture, which can be learned in a second; its defect is a dark square."""
    image = cv2.GaussianBlur(make_part(seed, size=64), (0, 0), 2)
    if defect:
        image[28:38, 42:52] = (30, 20, 140)
    return image


@pytest.fixture(scope="module")
def fitted() -> InTra:
    method = create("intra", **SETTINGS, steps=80, learning_rate=3e-3, smoothing=3)
    method.fit([smooth_part(seed) for seed in range(5)])
    return method  # type: ignore[return-value]


def test_defect_scores_above_good_and_is_found(fitted: InTra) -> None:
    predictions = fitted.predict([smooth_part(50), smooth_part(100, defect=True)])
    assert predictions.scores[1] > 2 * predictions.scores[0]
    assert predictions.maps is not None
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (64, 64))
    assert np.hypot(y - 33, x - 47) < 10


def test_window_lies_around_the_patch_or_ends_at_the_border() -> None:
    """Of a grid of 5 x 5: the windows around (2, 3), and of (0, 4) at the corner."""
    positions = window_positions(torch.tensor([1, 0]), torch.tensor([2, 2]), 5, 3)
    assert positions.tolist() == [[7, 8, 9, 12, 13, 14, 17, 18, 19], [2, 3, 4, 7, 8, 9, 12, 13, 14]]


def test_patches_are_painted_without_having_been_seen_from_those_around(fitted: InTra) -> None:
    assert fitted._fitted is not None
    network, image = fitted._fitted.network, to_batch([smooth_part(50)], 32)
    changed = image.clone()
    changed[:, :, 8:12, 28:32] = 0  # the patch in row 2, column 7, at the right border
    with torch.no_grad():
        apart = (inpainted(network, image, 4, 3) - inpainted(network, changed, 4, 3)).abs().amax((0, 1))
    patches = apart.view(8, 4, 8, 4).amax((1, 3))
    # At the border, windows reach two patches inward: those of row 0 hold row 2.
    others = {(row, column) for row in (0, 1, 2, 3) for column in (6, 7)} - {(2, 7)}
    assert {(int(row), int(column)) for row, column in (patches > 1e-5).nonzero()} == others


def test_map_is_the_squared_deviation_from_the_mean_of_the_good(fitted: InTra) -> None:
    assert fitted._fitted is not None
    network = fitted._fitted.network
    maps = []
    for image in [smooth_part(100, defect=True)] + [smooth_part(seed) for seed in range(5)]:
        batch = to_batch([image], 32)
        with torch.no_grad():
            difference = msgms_map(inpainted(network, batch, 4, 3), batch, 2)[0].numpy()
        padded = np.pad(difference, 1, mode="reflect")
        maps.append(np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).mean((2, 3)))
    expected = (maps[0] - np.mean(maps[1:], axis=0)) ** 2
    predictions = fitted.predict([smooth_part(100, defect=True)])
    assert predictions.maps is not None
    # The training images were rounded to whole numbers.
    assert predictions.scores[0] == pytest.approx(expected.max(), rel=0.02)
    np.testing.assert_allclose(cv2.resize(expected, (64, 64)), predictions.maps[0], atol=0.02 * expected.max())


def test_attention_by_hand() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block, x = _Block(8, 2).double(), torch.randn(1, 3, 8).double()
    with torch.no_grad():
        normal = block.before_attention(x)
        q, k, v = (np.asarray(f(normal)[0]) for f in (block.queries, block.keys, block.values))
        assert [m.shape[1] for m in (q, k, v)] == [4, 4, 8]
        heads = []
        for head in range(2):
            logits = q[:, 2 * head : 2 * head + 2] @ k[:, 2 * head : 2 * head + 2].T / np.sqrt(2)
            shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            heads.append(shares @ v[:, 4 * head : 4 * head + 4])
        middle = x + block.mix(torch.from_numpy(np.hstack(heads)))
        torch.testing.assert_close(block(x), middle + block.layers(block.before_layers(middle)))


@pytest.mark.parametrize(
    "wrong", [{"image_size": 40}, {"window": 20}, {"width": 100}, {"scales": 5}, {"steps": 0}, {"gms_weight": -1}]
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("intra", **wrong)
