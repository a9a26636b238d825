from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot_ad.zoo.components.gaussians import Gaussians, trimmed


def by_inverse(samples: np.ndarray, x: np.ndarray, regularization: float) -> float:
    """Mahalanobis distance as in a textbook, samples (n, d) and x (d,)."""
    covariance = np.zeros((len(x), len(x))) if len(samples) == 1 else np.cov(samples, rowvar=False)
    inverse = np.linalg.inv(covariance + regularization * np.eye(len(x)))
    offset = x - samples.mean(0)
    return float(np.sqrt(offset @ inverse @ offset))


@pytest.mark.parametrize(("n", "d"), [(40, 12), (12, 12), (5, 12), (1, 12)])
def test_distance_is_that_of_the_inverse_covariance(n: int, d: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, d, 9, 11))
    query = rng.normal(size=(d, 9, 11)) * 2
    shown = rng.random((n, 9, 11)) < 0.7
    shown[0] = True
    gaussians = Gaussians.fit(torch.tensor(features).float(), torch.tensor(shown), 0.01)
    distances = gaussians.distances(torch.tensor(query).float()).numpy()
    expected = [
        [by_inverse(features[shown[:, y, x], :, y, x], query[:, y, x], 0.01) for x in range(11)] for y in range(9)
    ]
    np.testing.assert_allclose(distances, expected, rtol=1e-3)


def test_few_samples_take_less_memory() -> None:
    features = torch.randn(4, 100, 8, 8, generator=torch.Generator().manual_seed(0))
    gaussians = Gaussians.fit(features, torch.ones(4, 8, 8, dtype=torch.bool))
    assert gaussians.few
    assert gaussians.W.shape == (64, 4, 100)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (8, 30)])
def test_trimmed_gaussians_are_those_of_the_samples_without_the_farthest(n: int, d: int) -> None:
    features = torch.randn(n, d, 5, 4, generator=torch.Generator().manual_seed(0))
    features[:2] *= 20
    everywhere = torch.ones(n, 5, 4, dtype=torch.bool)
    query = torch.randn(d, 5, 4, generator=torch.Generator().manual_seed(1))
    found = Gaussians.fit(features, everywhere, trim=2 / n).distances(query)
    expected = Gaussians.fit(features[2:], everywhere[2:]).distances(query)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-3)


def test_trimming_counts_what_is_shown_and_leaves_the_share_out_in_whole_samples() -> None:
    samples = torch.tensor([[0.0, 9, 1, 2, -30, 2.9, 1.5, 2.5]])[:, :, None]
    shown = torch.ones(1, 8, dtype=torch.bool)
    for trim, out in ((0.12, []), (0.125, [4]), (0.3, [1, 4]), (0.49, [1, 4, 0])):
        kept = trimmed(samples, shown, trim)[0]
        assert sorted(out) == (~kept).nonzero().flatten().tolist()
    # Of 7 that are shown, an eighth is less than one.
    shown[0, 4] = False
    assert (~trimmed(samples, shown, 0.125)[0]).nonzero().flatten().tolist() == [4]
    assert (~trimmed(samples, shown, 0.2)[0]).nonzero().flatten().tolist() == [1, 4]
    assert trimmed(samples[:, :1], shown[:, :1], 0.49).all()


def test_statistics_are_anomalibs() -> None:
    pytest.importorskip("anomalib", reason="anomalib is not installed")
    from anomalib.models.components import MultiVariateGaussian

    features = torch.randn(30, 10, 6, 5, generator=torch.Generator().manual_seed(1))
    query = torch.randn(10, 6, 5, generator=torch.Generator().manual_seed(2))
    mean, inverse = MultiVariateGaussian()(features)
    gaussians = Gaussians.fit(features, torch.ones(30, 6, 5, dtype=torch.bool))
    np.testing.assert_allclose(gaussians.mean.numpy(), mean.T.numpy(), atol=1e-5)
    offset = query.flatten(1).T - mean.T
    expected = torch.einsum("pi,pij,pj->p", offset, inverse, offset).sqrt().view(6, 5)
    np.testing.assert_allclose(gaussians.distances(query).numpy(), expected.numpy(), rtol=1e-3)
