"""Noise on features that suits their size, where anomalib's is of one size for all."""

from __future__ import annotations

import torch
from anomalib.models.image.supersimplenet.anomaly_generator import AnomalyGenerator


class RelativeNoise(AnomalyGenerator):
    """SuperSimpleNet's noise, as a share of the features' root mean square instead of 0.015.

    Args:
        share: That share.
        threshold: Of the Perlin noise that says where noise is.
    """

    def __init__(self, share: float, threshold: float) -> None:
        super().__init__(noise_mean=0, noise_std=0, threshold=threshold)
        self.share = share

    def forward(
        self,
        input_features: torch.Tensor | None,
        adapted_features: torch.Tensor,
        masks: torch.Tensor,
        labels: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `AnomalyGenerator`; the size is that of the features which one noise is added to."""
        features = adapted_features if input_features is None else input_features
        self.noise_std = self.share * float(features.detach().square().mean().sqrt())
        return super().forward(input_features, adapted_features, masks, labels)
