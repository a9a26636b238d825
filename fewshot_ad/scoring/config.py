"""How distances become a score and a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fewshot_ad.arguments import choice, number, whole_number
from fewshot_ad.errors import SupportSetError
from fewshot_ad.search.nearest import METRICS, Metric

ImageScore: TypeAlias = Literal["top_mean", "reweighted"]


IMAGE_SCORES: tuple[ImageScore, ...] = ("top_mean", "reweighted")


# Beyond, the smoothing is wider than the image, and slow.
MAX_SIGMA = 64.0


MAX_NEIGHBORS = MAX_PATCHES = 2**31 - 1


# Of thresholds and distances: far beyond what an encoder gives, and still finite in float32 after every step of a
# verdict.
MIN_DISTANCE, MAX_DISTANCE = 1e-30, 1e30


@dataclass(frozen=True)
class ScoringConfig:
    """How distances become a score and a map.

    Attributes:
        metric: Distance of patch embeddings: `l2` or `cosine`.
        image_score: `top_mean`, the mean of the largest patch distances, or `reweighted`, PatchCore's eq. 7.
        top_fraction: Share of the patches that `top_mean` averages, above 0 and at most 1.
        neighbors: b of eq. 7: how many bank neighbors `reweighted` compares, at least 2.
        edge_weight: Weight, in the score, of patches on the image's edge, 0..1. Half of what surrounds them is
            missing, and it is filled in differently on each of two good images that are framed a little
            differently. The map shows them in full.
        sigma: Standard deviation of the map's Gaussian smoothing, in pixels of a 256-pixel working scale, 0..64.
        max_patches: Of a finer grid than this many patches, `top_fraction` counts as of this many; None for no limit.
            The default is the grid of a 512-pixel working scale at a stride of 8. A defect does not grow with the
            working scale: on a finer grid the share would be ever more of the good around it.

    Raises:
        SupportSetError: A value is of a wrong kind or out of its range.
    """

    metric: Metric = "l2"
    image_score: ImageScore = "top_mean"
    top_fraction: float = 0.02
    neighbors: int = 9
    edge_weight: float = 2 / 3
    sigma: float = 4.0
    max_patches: int | None = 64 * 64

    def __post_init__(self) -> None:
        choice(self.metric, "metric", METRICS, error=SupportSetError)
        choice(self.image_score, "image_score", IMAGE_SCORES, error=SupportSetError)
        plain = {
            "top_fraction": number(self.top_fraction, "top_fraction", 0, 1, low_counts=False, error=SupportSetError),
            "neighbors": whole_number(self.neighbors, "neighbors", 2, MAX_NEIGHBORS, error=SupportSetError),
            "edge_weight": number(self.edge_weight, "edge_weight", 0, 1, error=SupportSetError),
            "sigma": number(self.sigma, "sigma", 0, MAX_SIGMA, error=SupportSetError),
        }
        if self.max_patches is not None:
            plain["max_patches"] = whole_number(
                self.max_patches, "max_patches", 1, MAX_PATCHES, error=SupportSetError, hint="Or None, for no limit."
            )
        for name, value in plain.items():
            # Numbers of numpy are taken too, but JSON has none of them.
            object.__setattr__(self, name, value)
