import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.encoder.registration import (
    PARTS,
    SpatialTransformer,
    adaptive_pool,
    compose,
    invert,
    warp,
)
from fewshot_ad.errors import WeightsError


def _turn(angle: float, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    return torch.tensor([[[c, -s, shift[0]], [s, c, shift[1]]]], dtype=torch.float32)


@pytest.mark.parametrize("mode", PARTS)
def test_every_mode_is_the_identity_at_initialization(mode):
    features = torch.rand(2, 6, 12, 17)
    warped, transform = SpatialTransformer(6, mode)(features)
    assert torch.allclose(warped, features, atol=1e-5)
    assert torch.allclose(transform, _turn(0.0).expand(2, -1, -1), atol=1e-6)


@pytest.mark.parametrize("mode", PARTS)
def test_a_mode_uses_only_its_own_transforms(mode):
    torch.manual_seed(0)
    transformer = SpatialTransformer(4, mode)
    torch.nn.init.normal_(transformer.regression[-1].bias, std=0.3)
    t = transformer.transform(torch.rand(1, 4, 16, 16))[0].detach().numpy()
    if "translation" not in mode and mode != "affine":
        assert np.allclose(t[:, 2], 0)
    if mode == "rotation":
        assert np.allclose(t[:, :2] @ t[:, :2].T, np.eye(2), atol=1e-6)
    if mode in ("scale", "translation+scale"):
        assert t[0, 1] == t[1, 0] == 0
        assert (np.diag(t) > 0).all()


def test_an_unknown_mode_is_refused():
    with pytest.raises(WeightsError, match="registration mode"):
        SpatialTransformer(4, "spin")


@settings(deadline=None, max_examples=25)
@given(
    angle=st.floats(-3.1, 3.1),
    scale=st.floats(0.7, 1.3),
    x=st.floats(-0.1, 0.1),
    y=st.floats(-0.1, 0.1),
    shape=st.sampled_from([(48, 48), (40, 56), (64, 32)]),
)
def test_a_warp_and_its_inverse_bring_a_dot_back_to_its_place(angle, scale, x, y, shape):
    height, width = shape
    dot = torch.zeros(1, 1, height, width)
    row, column = height // 2 + 4, width // 2 - 5
    dot[0, 0, row - 1 : row + 2, column - 1 : column + 2] = 1
    transform = _turn(angle, scale, (x, y))
    back = warp(warp(dot, transform), invert(transform))[0, 0].numpy()
    # Mirrored borders may show the dot a second time, far away.
    rows, columns = np.mgrid[:height, :width]
    back = back * (np.hypot(rows - row, columns - column) < 8)
    total = back.sum()
    assert 6 < total < 12
    assert abs((rows * back).sum() / total - row) < 0.75
    assert abs((columns * back).sum() / total - column) < 0.75


def test_a_quarter_turn_is_exact():
    features = torch.rand(1, 3, 20, 20)
    turned = warp(features, _turn(np.pi / 2))
    assert torch.allclose(turned, torch.rot90(features, -1, (2, 3)), atol=1e-4) or torch.allclose(
        turned, torch.rot90(features, 1, (2, 3)), atol=1e-4
    )


def test_a_composed_warp_equals_two_warps():
    smooth = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 6), (96, 96), mode="bicubic")
    one, two = _turn(0.3, 1.1), _turn(-0.2, 0.95, (0.05, -0.03))
    twice = warp(warp(smooth, one), two)
    once = warp(smooth, compose(one, two))
    middle = np.s_[0, 0, 24:72, 24:72]
    assert (twice[middle] - once[middle]).abs().max() < 0.02


def test_invert_agrees_with_numpy():
    transform = torch.randn(5, 2, 3)
    full = np.concatenate([transform.numpy(), np.tile([[[0, 0, 1]]], (5, 1, 1))], axis=1)
    assert np.allclose(invert(transform).numpy(), np.linalg.inv(full)[:, :2], atol=1e-3)


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (64, 8)])
def test_adaptive_pool_agrees_with_torch(size):
    features = torch.rand(2, 3, *size)
    assert torch.allclose(adaptive_pool(features, 8), torch.nn.functional.adaptive_avg_pool2d(features, 8), atol=1e-5)


def test_adaptive_pool_keeps_the_mean_of_any_size():
    features = torch.rand(1, 2, 13, 7)
    assert torch.allclose(adaptive_pool(features, 8).mean((2, 3)), features.mean((2, 3)), atol=1e-5)
