"""anomalib's UniNet, built around two teachers from disk."""

from __future__ import annotations

import torch
from anomalib.models.components import AnomalibModule, TimmFeatureExtractor
from anomalib.models.components.backbone import get_decoder
from anomalib.models.image.uninet import UniNet
from anomalib.models.image.uninet.components import (
    AttentionBottleneck,
    BottleneckLayer,
    DomainRelatedFeatureSelection,
    UniNetLoss,
)
from anomalib.models.image.uninet.torch_model import Teachers, UniNetModel
from torch import nn

from fewshot_ad.zoo.anomalib.bare import bare

LAYERS = ["layer1", "layer2", "layer3"]


class OfflineUniNet(UniNet):
    """UniNet. `family` is the name anomalib knows the decoder by."""

    def __init__(self, network: str, family: str, temperature: float) -> None:
        AnomalibModule.__init__(self, **bare())
        self.loss = UniNetLoss(temperature=temperature)
        teachers, model = Teachers.__new__(Teachers), UniNetModel.__new__(UniNetModel)
        nn.Module.__init__(teachers)
        nn.Module.__init__(model)
        teachers.source_teacher = TimmFeatureExtractor(network, LAYERS).eval()
        # This one is trained, too, so its weights must not stay frozen as they come.
        teachers.target_teacher = TimmFeatureExtractor(network, LAYERS, requires_grad=True).requires_grad_(True)
        model.teachers = teachers
        model.student = get_decoder(family)
        model.bottleneck = BottleneckLayer(block=AttentionBottleneck, layers=3)
        model.dfs = DomainRelatedFeatureSelection()
        model.loss = self.loss
        model.bce_loss = torch.nn.BCEWithLogitsLoss()
        model.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        model.fc = nn.Linear(256, 1)
        self.model = model
