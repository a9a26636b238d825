"""anomalib's CFM around networks from disk. All else is inherited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from anomalib.models.components import AnomalibModule
from anomalib.models.image.cfm import CFM
from anomalib.models.image.cfm.anomaly_map import CFMAnomalyMapGenerator
from anomalib.models.image.cfm.components import (
    FeatureExtractors,
    FeatureProjectionMLP,
    MultimodalFeatures,
    PointTransformer,
)
from anomalib.models.image.cfm.torch_model import CFMModel
from torch import nn

from fewshot_ad.errors import WeightsError
from fewshot_ad.zoo.anomalib.bare import bare
from fewshot_ad.zoo.components.tensors import missing_tensors

# Layers 4, 8 and 12 of the point transformer, side by side.
POINT_LAYERS = 3


class OfflineCfmModel(CFMModel):
    """CFM's model.

    Args:
        color: A vision transformer of timm's, with one token that is no patch.
        groups: Groups of points that the point transformer sees.
        group_size: Points of a group.
    """

    def __init__(self, color: Any, groups: int, group_size: int) -> None:
        nn.Module.__init__(self)
        points = PointTransformer(group_size, groups)
        features, extractors = (kind.__new__(kind) for kind in (MultimodalFeatures, FeatureExtractors))
        nn.Module.__init__(features)
        nn.Module.__init__(extractors)
        extractors.rgb_backbone, extractors.xyz_backbone = color, points
        features.extractors, features.average = extractors, nn.AvgPool2d(3, 1, 1)
        self.feature_extractors = features.eval().requires_grad_(False)
        of_color, of_points = color.embed_dim, POINT_LAYERS * points.trans_dim
        self.xyz_to_rgb_mapper = FeatureProjectionMLP(of_points, of_color)
        self.rgb_to_xyz_mapper = FeatureProjectionMLP(of_color, of_points)
        self.cos_sim = nn.CosineSimilarity(dim=1, eps=1e-6)
        self.anomaly_map_generator = _Maps()

    def compute_losses(
        self, rgb_feat: torch.Tensor, xyz_feat: torch.Tensor, pred_rgb: torch.Tensor, pred_xyz: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The losses over the pixels that have a position, as in the authors' code; anomalib takes all pixels."""
        seen = xyz_feat.any(1)
        parts = [(pred_rgb, rgb_feat), (pred_xyz, xyz_feat)]
        losses = [1 - self.cos_sim(*(v.movedim(1, -1)[seen] for v in pair)).mean() for pair in parts]
        return {"loss": losses[0] + losses[1], "loss_rgb": losses[0], "loss_xyz": losses[1]}


class _Maps(CFMAnomalyMapGenerator):
    """Maps that are 0 at pixels without a position, as in the authors' code; in anomalib's they are high there."""

    @staticmethod
    def compute_distance(real: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) each -> (N, H, W); 0 where there is no feature to foretell."""
        return CFMAnomalyMapGenerator.compute_distance(real, predicted) * real.any(1)


class OfflineCfm(CFM):
    """CFM."""

    def __init__(self, model: OfflineCfmModel, learning_rate: float) -> None:
        AnomalibModule.__init__(self, **bare())
        self.model, self.lr = model, learning_rate


def load_points(model: OfflineCfmModel, weights: str) -> None:
    """Fill the point transformer of a model from a file of Point-MAE's pretraining.

    Raises:
        WeightsError: The file is of another network, or holds more than tensors.
    """
    try:
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:
        # Only the class: torch's own words advise to run what is in the file.
        raise WeightsError(
            f"{weights}: expected Point-MAE's file of plain tensors, got something else ({type(error).__name__})."
        ) from None
    found = content.get("base_model", content) if isinstance(content, dict) else {}
    state = {key.removeprefix("module.").removeprefix("MAE_encoder."): tensor for key, tensor in found.items()}
    tensors = {key: tensor for key, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    network = model.feature_extractors.extractors.xyz_backbone
    missing = missing_tensors(network, tensors)
    if missing:
        raise WeightsError(
            f"{Path(weights).name} is not of Point-MAE's encoder: it lacks {len(missing)} tensors, first {missing[0]}."
        )
    network.load_state_dict({key: tensors[key] for key in network.state_dict()})
