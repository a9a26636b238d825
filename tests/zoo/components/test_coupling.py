"""Coupling blocks against autograd, over vectors and over maps with a condition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fewshot_ad.zoo.components.coupling import Coupling, Flow, Inner, soft_clamp, surprise


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def perceptron(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))


def convolutions(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, outputs, 1))


def a_flow(blocks: int, inner: Inner = perceptron, condition: int = 0) -> Flow:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = Flow(7, [inner] * blocks, torch.Generator().manual_seed(1), 3.0, condition).double()
    # Far from the identity: networks with their first weights say little.
    with torch.no_grad():
        for p in flow.parameters():
            p *= 1.5
    return flow


def undone(flow: Flow, latent: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
    for block in reversed(flow.blocks):
        latent = block.inverse(latent, condition)
    return latent


def test_a_flow_can_be_undone(features: torch.Tensor) -> None:
    flow = a_flow(4)
    latent, _ = flow(features)
    torch.testing.assert_close(undone(flow, latent), features)
    assert not torch.allclose(latent, features, atol=0.1)


def test_a_flow_over_maps_depends_on_its_condition_and_can_be_undone_with_it() -> None:
    generator = torch.Generator().manual_seed(3)
    maps = torch.randn(2, 7, 4, 5, generator=generator, dtype=torch.float64)
    condition = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    flow = a_flow(3, convolutions, 3)
    latent, log_determinant = flow(maps, condition)
    assert log_determinant.shape == (2, 4, 5)
    torch.testing.assert_close(undone(flow, latent, condition), maps)
    assert not torch.allclose(flow(maps, 0 * condition)[0], latent, atol=0.1)


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_determinant_is_the_one_of_the_jacobian(blocks: int, features: torch.Tensor) -> None:
    flow = a_flow(blocks)
    _, log_determinant = flow(features)
    for one, value in zip(features, log_determinant, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: flow(x[None])[0][0], one)
        assert value.item() == pytest.approx(float(torch.linalg.slogdet(jacobian).logabsdet), abs=1e-9)
        assert abs(value.item()) > 1e-3


def test_the_determinant_over_maps_is_the_sum_over_positions() -> None:
    flow = a_flow(2, convolutions)
    maps = torch.randn(1, 7, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x.view(1, 7, 2, 3))[0].flatten(), maps.flatten())
    expected = float(torch.linalg.slogdet(jacobian).logabsdet)
    assert flow(maps)[1].sum().item() == pytest.approx(expected, abs=1e-9)


def test_permutations_come_from_the_generator() -> None:
    orders = [Coupling(32, perceptron, torch.Generator().manual_seed(seed), 3.0).order for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert sorted(orders[0].tolist()) == list(range(32))


def test_soft_clamp_stays_within_its_clamp() -> None:
    h = torch.tensor([-1e6, -3.0, 0.0, 3.0, 1e6])
    assert soft_clamp(h, 3.0).tolist() == pytest.approx([-3.0, -1.5, 0.0, 1.5, 3.0], abs=1e-4)
    assert soft_clamp(h, 1.9).abs().max() == pytest.approx(1.9, abs=1e-4)


def test_surprise_is_the_likelihood_of_a_gaussian_up_to_its_constant(features: torch.Tensor) -> None:
    latent, log_determinant = a_flow(2)(features)
    normal = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
    likelihood = normal.log_prob(latent).sum(1) + log_determinant
    torch.testing.assert_close(surprise(latent, log_determinant) + 7 * math.log(2 * math.pi) / 2, -likelihood)
