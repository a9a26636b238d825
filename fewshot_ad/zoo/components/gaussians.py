"""A Gaussian at each position of a feature grid, and the Mahalanobis distance to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fewshot_ad.arrays import Float32Array, Progress
from fewshot_ad.zoo.components.shots import smoothed

# Positions per step, which bounds the memory of the double-precision matrices.
POSITIONS = 64


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Means and factors of the inverse covariances.

    With n samples of d dimensions, B the centered samples over sqrt(n - 1) and e the regularization, the covariance is
    S = B'B + e I. For n >= d, W = inv(L) with L L' = S, and the squared distance of x is |W x|^2. For n < d, as with a
    few images, L L' = B B' + e I is only n x n, W = inv(L) B, and by the matrix inversion lemma the squared
    distance is (|x|^2 - |W x|^2) / e: the same value from n / d of the memory.

    Attributes:
        mean: (h * w, d) float32.
        W: (h * w, min(n, d), d) float32.
        regularization: e.
        few: Whether n < d.

    Source: Woodbury 1950 for the lemma.
    """

    mean: torch.Tensor
    W: torch.Tensor
    regularization: float
    few: bool

    @classmethod
    def fit(
        cls,
        features: torch.Tensor,
        shown: torch.Tensor,
        regularization: float = 0.01,
        progress: Progress | None = None,
        trim: float = 0.0,
    ) -> Gaussians:
        """Estimate the Gaussians from samples.

        Args:
            features: (n, d, h, w) samples, of any float type.
            shown: (n, h, w) bool: the samples that count at each position, at least one each.
            regularization: Added to the diagonal of the covariances, above 0.
            progress: Called as `progress("covariance", done, h * w)`.
            trim: Share of the samples that is left out at each position, see `trimmed`.
        """
        n, d = features.shape[:2]
        few = n < d
        positions = features.flatten(2)
        counts = shown.flatten(1)
        total = positions.shape[2]
        mean = torch.empty((total, d))
        W = torch.empty((total, min(n, d), d))
        identity = torch.eye(min(n, d), dtype=torch.float64)
        for start in range(0, total, POSITIONS):
            at = slice(start, start + POSITIONS)
            x = positions[:, :, at].permute(2, 0, 1).double()
            kept = counts[:, at].T
            weight = (trimmed(x, kept, trim) if trim > 0 else kept)[:, :, None].double()
            count = weight.sum(1)
            middle = (x * weight).sum(1) / count
            b = (x - middle[:, None]) * weight / (count - 1).clamp_min(1).sqrt()[:, None]
            gram = b @ b.transpose(1, 2) if few else b.transpose(1, 2) @ b
            factor = torch.linalg.cholesky(gram + regularization * identity)
            right = b if few else identity.expand_as(factor)
            mean[at] = middle.float()
            W[at] = torch.linalg.solve_triangular(factor, right, upper=False).float()
            if progress is not None:
                progress("covariance", min(start + POSITIONS, total), total)
        return cls(mean, W, regularization, few)

    def distances(self, features: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distances (h, w) float32 of the features (d, h, w) of one image."""
        x = features.flatten(1).T - self.mean
        squared = (self.W @ x[:, :, None]).square().sum((1, 2))
        if self.few:
            squared = (x.square().sum(1) - squared) / self.regularization
        return squared.clamp_min(0).sqrt().view(features.shape[1:])

    def judge(self, features: torch.Tensor, side: int, sigma: float) -> tuple[float, Float32Array]:
        """Score and map of one image: the smoothed distances and their maximum.

        Args:
            features: (d, h, w).
            side: As for `shots.smoothed`, like `sigma`.
            sigma: Standard deviation of the smoothing, in pixels of the input.

        Returns:
            The score, and the map (side, side) float32.
        """
        heat = smoothed(self.distances(features).numpy(), side, sigma)
        return float(heat.max()), heat


def trimmed(samples: torch.Tensor, shown: torch.Tensor, trim: float) -> torch.Tensor:
    """The samples that are left when those farthest from the median are taken away, position by position.

    Args:
        samples: (p, n, d) at p positions.
        shown: (p, n) bool: those that count, at least one at each position.
        trim: Share of these that is left out, at least 0 and below 0.5, rounded down: of 8 samples, 0.125 leaves out
            1, and 0.1 none.

    Returns:
        (p, n) bool.

    Source: the idea to estimate from the samples that agree best, Rousseeuw 1984 and Rousseeuw & Van Driessen 1999
    (minimum covariance determinant). Here they are found in one step, by the Euclidean distance to the median of each
    dimension: a few samples of many dimensions have no covariance to measure the distance with.
    """
    median = samples.masked_fill(~shown[:, :, None], torch.nan).nanmedian(1, keepdim=True).values
    distances = (samples - median).square().sum(2).masked_fill(~shown, torch.inf)
    count = shown.sum(1)
    # The small number makes up for products like 0.29 * 100, which are just below a whole number.
    kept = count - (trim * count + 1e-6).floor().long()
    rank = distances.argsort(dim=1, stable=True).argsort(dim=1)
    return rank < kept[:, None]
