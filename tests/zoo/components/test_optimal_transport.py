from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fewshot_ad.zoo.components.optimal_transport import sinkhorn_divergence, transport_cost, transport_plan


@pytest.fixture
def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 6, 3, generator=generator, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


def test_with_little_blur_the_cost_is_the_best_assignments(clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    costs = transport_cost(*clouds, 0.02)
    for first, second, cost in zip(*clouds, costs, strict=True):
        squares = ((first[:, None] - second[None]) ** 2).sum(2).numpy() / 2
        best = min(squares[range(6), order].mean() for order in itertools.permutations(range(6)))
        assert float(cost) == pytest.approx(best, rel=0.05)


def test_the_plan_spreads_the_points_weights(clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    cost = (clouds[0][:, :, None] - clouds[1][:, None, :4]).square().sum(3) / 2
    plan = transport_plan(cost, 1.0)
    np.testing.assert_allclose(plan.sum(2), np.full((2, 6), 1 / 6), rtol=0.02)
    np.testing.assert_allclose(plan.sum(1), np.full((2, 4), 1 / 4), rtol=0.02)


def test_a_cloud_is_at_no_distance_from_itself_in_another_order(clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    cloud, other = clouds
    assert float(sinkhorn_divergence(cloud, cloud.flip(1), 0.1).abs().max()) < 1e-9
    assert float(sinkhorn_divergence(cloud, other, 0.1).min()) > 0.1


def test_a_shift_costs_half_its_square_and_descent_undoes_it() -> None:
    cloud = torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shifted = (cloud + torch.tensor([0.3, 0.0])).requires_grad_()
    divergence = sinkhorn_divergence(shifted, cloud, 0.02).sum()
    assert float(divergence.detach()) == pytest.approx(0.3**2 / 2, rel=0.02)
    (gradient,) = torch.autograd.grad(divergence, shifted)
    # Every point moves back by the shift, with a fifth of the weight each.
    np.testing.assert_allclose(gradient[0], np.tile([0.3 / 5, 0.0], (5, 1)), atol=2e-3)
