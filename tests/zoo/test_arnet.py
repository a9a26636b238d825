"""ARNet: what its erasures lose and keep, the loop, the score."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fewshot_ad.errors import ZooError  # noqa: E402
from fewshot_ad.zoo import create, options  # noqa: E402
from fewshot_ad.zoo.arnet import ERASURES, Erasure, UNet  # noqa: E402
from tests.conftest import make_part  # noqa: E402

TINY = {"image_size": 64, "epochs": 1, "width": 4}


def fitted(count: int = 4, **settings):
    method = create("arnet", **{**TINY, **settings})
    method.fit([make_part(seed, 96) for seed in range(count)])
    return method


def test_graying_loses_color_and_keeps_its_mean():
    batch = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    gray = Erasure(True, 0)(batch)
    assert gray.shape == (2, 1, 8, 8)
    assert torch.allclose(gray[:, 0], (batch[:, 0] + batch[:, 1] + batch[:, 2]) / 3)
    # Two colors of equal mean are equal afterwards.
    assert torch.equal(gray, Erasure(True, 0)(batch.flip(1))) or torch.allclose(gray, Erasure(True, 0)(batch.flip(1)))


def test_turning_loses_orientation_and_nothing_else():
    batch = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for turns, expected in enumerate(np.rot90(batch.numpy(), k, (2, 3)) for k in range(4)):
        turned = Erasure(False, turns)(batch)
        np.testing.assert_array_equal(turned, expected)
        assert torch.equal(Erasure(False, (4 - turns) % 4)(turned), batch)
    assert len(ERASURES["gray+rotation"]) == 4
    assert len(ERASURES["rotation"]) == 4
    assert len(ERASURES["gray"]) == 1
    # A part turned beforehand gives the same four inputs, in another order: its orientation is gone.
    sets = [
        {Erasure(True, k)(b).numpy().tobytes() for k in range(4)} for b in (batch.contiguous(), batch.rot90(1, (2, 3)))
    ]
    assert sets[0] == sets[1]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_restores_three_channels_in_the_same_size(channels: int):
    network = UNet(channels, width=4).eval()
    with torch.no_grad():
        restored = network(torch.zeros(2, channels, 48, 48))
    assert restored.shape == (2, 3, 48, 48)
    assert float(restored.abs().max()) <= 1
    widths = [m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert widths == [4, 4, 8, 8, 16, 16, 32, 32, 32, 32, 16, 16, 8, 8, 4, 4, 4, 4, 3]


@pytest.mark.parametrize("erasing", sorted(ERASURES))
def test_scores_and_maps_are_finite_and_in_the_images_sizes(erasing: str):
    method = fitted(erasing=erasing)
    predictions = method.predict([make_part(7, 80), make_part(8, 120)[:100]])
    assert np.isfinite(predictions.scores).all()
    assert (predictions.scores > 0).all()
    assert [m.shape for m in predictions.maps] == [(80, 80), (100, 120)]
    assert all(np.isfinite(m).all() for m in predictions.maps)
    assert method.model_bytes() > 4 * sum(p.numel() for p in method._restoration.network.parameters())


def test_the_score_is_the_absolute_error_relative_to_the_training_errors():
    method = fitted(sigma=0.0)
    parts = [make_part(seed, 64) for seed in range(4)]
    method.fit(parts)

    def errors(part: np.ndarray) -> np.ndarray:
        whole = part.astype(np.float32) / 127.5 - 1
        values = []
        for turns in range(4):
            gray = np.rot90(whole.mean(2), turns).copy()
            with torch.no_grad():
                restored = method._restoration.network(torch.from_numpy(gray)[None, None])[0].permute(1, 2, 0).numpy()
            values.append(np.abs(restored - whole).mean(2))
        return np.stack(values)

    usual = np.mean([errors(p).mean((1, 2)) for p in parts], axis=0)
    new = make_part(9, 64, defect=True)
    expected = (errors(new) / usual[:, None, None]).mean(0)
    predictions = method.predict([new])
    assert predictions.scores[0] == pytest.approx(expected.mean(), rel=1e-3)
    np.testing.assert_allclose(predictions.maps[0], expected, rtol=2e-3, atol=1e-3)
    # Of the images it was trained on, the mean score is 1.
    assert method.predict(parts).scores.mean() == pytest.approx(1.0, rel=1e-3)


def test_the_seed_decides_and_each_image_is_judged_as_if_it_came_alone():
    images = [make_part(7, 96), make_part(8, 96)]
    state = torch.random.get_rng_state()
    one, two, other = (fitted(seed=s).predict(images) for s in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.maps[0], two.maps[0])
    assert not np.array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(fitted(seed=3).predict(images[1:]).scores, one.scores[1:])


def test_after_some_training_a_wrong_color_is_seen_where_it_is():
    method = fitted(count=5, epochs=40, width=8, erasing="gray")
    part = make_part(20, 96)
    painted = part.copy()
    cv2.circle(painted, (70, 48), 8, (30, 20, 240), -1)
    clean, defective = (method.predict([p]) for p in (part, painted))
    assert defective.scores[0] > clean.scores[0]
    difference = defective.maps[0] - clean.maps[0]
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    assert np.hypot(row - 48, column - 70) < 12


def test_the_defaults():
    assert options("arnet") == {
        "image_size": 256,
        "epochs": 125,
        "erasing": "gray+rotation",
        "width": 64,
        "sigma": 4.0,
    }


@pytest.mark.parametrize("setting", [{"image_size": 40}, {"erasing": "blur"}, {"epochs": 0}, {"sigma": -1.0}])
def test_senseless_settings_are_refused(setting: dict):
    with pytest.raises(ZooError, match="expected"):
        create("arnet", **setting)
