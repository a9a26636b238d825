"""Entropic optimal transport between clouds of points, in the logarithmic domain.

Source: Cuturi 2013 (Sinkhorn's algorithm); Feydy et al. 2019, Interpolating between Optimal Transport and MMD using
Sinkhorn Divergences (divergence, scaling of the blur).
"""

from __future__ import annotations

import math

import torch

# The blur halves from one iteration to the next, until it is reached; then some more at that blur.
SCALING, LAST_ITERATIONS = 0.5, 5


def sinkhorn_divergence(first: torch.Tensor, second: torch.Tensor, blur: float) -> torch.Tensor:
    """Cost of transport between two clouds, less the mean of those within each: 0 for equal clouds.

    Args:
        first: (N, n, d), N clouds of n points of equal weight.
        second: (N, m, d), the clouds to compare them with, one by one.
        blur: Distance within which points are not told apart.

    Returns:
        (N,), with a gradient.
    """
    within = (transport_cost(first, first, blur) + transport_cost(second, second, blur)) / 2
    return transport_cost(first, second, blur) - within


def transport_cost(first: torch.Tensor, second: torch.Tensor, blur: float) -> torch.Tensor:
    """Mean cost of the entropic transport plan, half the squared distance per point. Arguments as above; (N,)."""
    squares = [cloud.square().sum(2) / 2 for cloud in (first, second)]
    cost = squares[0][:, :, None] + squares[1][:, None] - first @ second.mT
    # Of the optimal plan the cost's gradient is that with the plan held fixed.
    with torch.no_grad():
        plan = transport_plan(cost, blur)
    return (plan * cost).sum((1, 2))


def transport_plan(cost: torch.Tensor, blur: float) -> torch.Tensor:
    """Costs (N, n, m) -> the entropic plan (N, n, m); rows sum to 1 / n, columns to 1 / m."""
    log_n, log_m = math.log(cost.shape[1]), math.log(cost.shape[2])
    largest = math.sqrt(2 * max(float(cost.max()), blur**2))
    halvings = max(0, math.ceil(math.log(blur / largest, SCALING)))
    blurs = [largest * SCALING**k for k in range(halvings)] + [blur] * LAST_ITERATIONS
    f, g = cost.new_zeros(cost.shape[:2]), cost.new_zeros(cost.shape[0], cost.shape[2])
    for sigma in blurs:
        epsilon = sigma**2
        f = -epsilon * (((g[:, None] - cost) / epsilon).logsumexp(2) - log_m)
        g = -epsilon * (((f[:, :, None] - cost) / epsilon).logsumexp(1) - log_n)
    return ((f[:, :, None] + g[:, None] - cost) / blur**2 - log_n - log_m).exp()
