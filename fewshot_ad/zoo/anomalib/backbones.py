"""Backbones for anomalib, with weights from disk: under names of timm's registry, which anomalib asks for them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import is_model, register_model

from fewshot_ad.errors import WeightsError
from fewshot_ad.zoo.components.tensors import IMAGENET_MEAN, IMAGENET_STD, Backbone, standardize
from fewshot_ad.zoo.method import FROM_TIMM

# Backbones whose weights come with the package or its requirements.
AT_HAND = ("resnet18", "lite0")


def timm_name(backbone: str, weights: str | None, small: bool = True) -> str:
    """A name by which `timm.create_model(name, pretrained=True)` gives a backbone with its weights from disk.

    anomalib asks timm for pretrained backbones by name. timm's registry is open to the architectures of others, so a
    new name in it brings in weights without a download.

    Args:
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        small: Whether the method runs on the small backbones whose weights are at hand.

    Raises:
        WeightsError: There is no such backbone, or there are no weights for it.
    """
    model = {"lite0": "tf_efficientnet_lite0"}.get(backbone, backbone)
    if not is_model(model):
        raise WeightsError(f"expected resnet18, lite0 or a timm model, got {backbone!r}.")
    if weights is None and backbone not in AT_HAND:
        others = "" if "vit" in backbone or not small else ", or take resnet18 or lite0, which come with theirs"
        raise WeightsError(
            f"{backbone}: expected weights, which are not at hand. Give weights=FILE (safetensors, or a .pth state "
            f"dict of this timm model){others}; weights='random' runs the code, but its figures mean nothing."
        )
    if weights not in (None, "random", FROM_TIMM) and not Path(str(weights)).is_file():
        raise WeightsError(f"expected a file of weights for {backbone}, but {weights} is none. Check the path.")

    def entry(pretrained: bool = False, **arguments: Any) -> torch.nn.Module:
        arguments = {k: v for k, v in arguments.items() if not k.startswith("pretrained_") and k != "cache_dir"}
        if pretrained and arguments.get("features_only"):
            return from_imagenet(Backbone(backbone, arguments["out_indices"], weights))
        if not pretrained or weights == "random":
            return timm.create_model(model, pretrained=False, **arguments)
        if weights == FROM_TIMM:
            return timm.create_model(model, pretrained=True, **arguments)
        return timm.create_model(model, pretrained=True, pretrained_cfg_overlay={"file": weights}, **arguments)

    # timm reads the name off the function. It begins with the model's: anomalib looks for "vit" and "small" in it.
    entry.__name__ = f"{model.split('.')[0]}_{hashlib.sha256(str(weights).encode()).hexdigest()[:8]}"
    if not is_model(entry.__name__):
        register_model(entry)
    return entry.__name__


class _FromImagenet(torch.nn.Module):
    """A network that expects another mean and deviation than ImageNet's, for input standardized by ImageNet's."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network, self.feature_info = backbone.network, backbone.network.feature_info
        self._mean, self._std = backbone.mean, backbone.std

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return list(self.network(standardize(batch * std + mean, self._mean, self._std)))


def from_imagenet(backbone: Backbone) -> torch.nn.Module:
    """A backbone's network, for input standardized by ImageNet's mean and deviation."""
    return backbone.network if backbone.mean == IMAGENET_MEAN else _FromImagenet(backbone)
