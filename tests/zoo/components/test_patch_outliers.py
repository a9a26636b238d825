from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot_ad.zoo.components.patch_outliers import like_others, outlier_weights, projected


def maps(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Feature maps of n images, the last of which is an outlier in one corner."""
    features = torch.randn(n, d, 9, 8, generator=torch.Generator().manual_seed(seed))
    features[-1, :, :3, :3] += 5
    return features


@pytest.mark.parametrize(("n", "neighbors"), [(12, 6), (12, 20), (2, 6)])
def test_local_outlier_factor_is_scikit_learns(n: int, neighbors: int) -> None:
    neighbors_module = pytest.importorskip("sklearn.neighbors", reason="scikit-learn is not installed")
    features = maps(n, 10)
    weights = outlier_weights(features, "lof", neighbors)
    for y, x in ((0, 0), (5, 5), (8, 7)):
        lof = neighbors_module.LocalOutlierFactor(n_neighbors=min(neighbors, n - 1)).fit(features[:, :, y, x].numpy())
        np.testing.assert_allclose(weights[:, y, x], -lof.negative_outlier_factor_, rtol=1e-4)


def test_nearest_and_gaussian_by_hand() -> None:
    features = maps(7, 4)
    nearest, gaussian = outlier_weights(features, "nearest"), outlier_weights(features, "gaussian")
    for y, x in ((0, 0), (5, 5), (8, 7)):
        samples = features[:, :, y, x].double().numpy()
        apart = np.linalg.norm(samples[:, None] - samples[None], axis=2) + np.diag([np.inf] * 7)
        np.testing.assert_allclose(nearest[:, y, x], 1 + apart.min(1), rtol=1e-5)
        offset = samples - samples.mean(0)
        inverse = np.linalg.inv(np.cov(samples, rowvar=False) + 0.01 * np.eye(4))
        np.testing.assert_allclose(gaussian[:, y, x], 1 + np.sqrt(((offset @ inverse) * offset).sum(1)), rtol=1e-4)


@pytest.mark.parametrize("discriminator", ["lof", "nearest", "gaussian"])
def test_outliers_weigh_most(discriminator: str) -> None:
    weights = outlier_weights(maps(8, 3), discriminator)  # type: ignore[arg-type]
    assert (weights[:, :3, :3].argmax(0) == 7).all()
    assert weights.shape == (8, 9, 8)
    assert weights.dtype == torch.float32


@pytest.mark.parametrize("discriminator", ["lof", "nearest", "gaussian"])
def test_a_single_image_and_images_that_repeat_each_other_have_weights_near_1(discriminator: str) -> None:
    image = maps(1, 200)
    assert (outlier_weights(image, discriminator) == 1).all()  # type: ignore[arg-type]
    same = outlier_weights(image.expand(5, -1, -1, -1), discriminator)  # type: ignore[arg-type]
    np.testing.assert_allclose(same, 1, atol=1e-3)


def test_projection_keeps_distances_up_to_its_scale_and_is_that_of_the_seed() -> None:
    features = maps(6, 300)
    points = projected(features, seed=3)
    assert points.shape == (6, 128, 9, 8)
    before, after = (f.flatten(1).double() for f in (features, points))
    # Entries even within 1 / sqrt(d) have a variance of 1 / (3 d).
    ratio = torch.pdist(after) / torch.pdist(before)
    np.testing.assert_allclose(ratio, (128 / 3 / 300) ** 0.5, rtol=0.05)
    assert torch.equal(points, projected(features, seed=3))
    assert not torch.equal(points, projected(features, seed=4))


def test_patches_least_like_those_of_other_images_are_left_out() -> None:
    rng = np.random.default_rng(0)
    patches = rng.normal(0, 1, (90, 8)).astype(np.float32)
    images = np.repeat(np.arange(3, dtype=np.int32), 30)
    views = np.tile(np.repeat(np.array([0, 1], np.int32), 15), 3)
    # One image shows something that the others do not, in both of its views.
    odd = [3, 18]
    patches[odd] += 50
    kept = like_others(patches, images, views, share=0.05)
    assert len(kept) == 86
    assert not set(odd) & set(kept.tolist())
    # By hand: the distance to the nearest patch of another image as it is.
    difference = np.linalg.norm(patches[:, None] - patches[None], axis=2)
    difference[(images[:, None] == images[None]) | (views[None] > 0)] = np.inf
    assert set(np.argsort(difference.min(1))[86:]) == set(range(90)) - set(kept.tolist())
    alone = like_others(patches[:30], images[:30], views[:30], 0.1)
    assert np.array_equal(alone, np.arange(30)), "without another image nothing is left out"
