"""anomalib's methods that keep a vision transformer's features of good images; they take no gradient steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.anomalib.adapter import AnomalibMethod, Schedule, card
from fewshot_ad.zoo.anomalib.backbones import timm_name
from fewshot_ad.zoo.anomalib.bare import bare
from fewshot_ad.zoo.anomalib.transformers import NOT_AT_HAND, SMALLER, check_side
from fewshot_ad.zoo.method import Method, baseline


@baseline(
    card(
        "anomaly_dino",
        "AnomalyDINO",
        "Damm et al. 2025, AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2, WACV",
        2025,
        "memory bank",
        NOT_AT_HAND.format("DINOv2 ViT-S/14"),
        trains=False,
        pretrained="DINOv2",
        at_hand="not at hand",
        departs=("no rotated views of the support images",),
    )
)
def anomaly_dino(
    *,
    seed: int = 0,
    image_size: int = 448,
    backbone: str = "vit_small_patch14_dinov2",
    weights: str | None = None,
    neighbors: int = 1,
    masking: bool = False,
    coreset: bool = False,
    coreset_ratio: float = 0.1,
    batch_size: int = 8,
) -> Method:
    """AnomalyDINO. Source: Damm et al. 2025, section 4: 448 pixels, 1 neighbor; without rotated views, as anomalib."""
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models.image.anomaly_dino import AnomalyDINO

        return AnomalyDINO(neighbors, network, masking, coreset, coreset_ratio, **bare())

    return AnomalibMethod("anomalib_anomaly_dino", build, Schedule(image_size, batch_size=batch_size), seed)


@baseline(
    card(
        "rad",
        "RAD",
        "Zhang et al. 2026, Is Training Necessary for Anomaly Detection?, arXiv:2601.22763",
        2026,
        "memory bank",
        NOT_AT_HAND.format("DINOv3 ViT-B/16"),
        trains=False,
        pretrained="DINOv3",
        at_hand="not at hand",
    )
)
def rad(
    *,
    seed: int = 0,
    image_size: int = 448,
    backbone: str = "vit_base_patch16_dinov3",
    weights: str | None = None,
    layers: Sequence[int] = (3, 6, 9, 11),
    images: int = 150,
    position_radius: int = 1,
    max_ratio: float = 0.01,
    batch_size: int = 8,
) -> Method:
    """RAD with anomalib's numbers: layers 3, 6, 9 and 11, patches within 1 of the same place, at 448 pixels."""
    check_side("anomalib_rad", image_size, backbone)
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models.image.rad import Rad

        return Rad(network, list(layers), True, images, True, position_radius, max_ratio, **bare())

    return AnomalibMethod("anomalib_rad", build, Schedule(image_size, batch_size=batch_size), seed)


@baseline(
    card(
        "super_add",
        "SuperADD",
        "SuperADD: Training-free Class-agnostic Anomaly Segmentation, 2026, arXiv:2605.14808, CVPR workshops",
        2026,
        "memory bank",
        SMALLER.format("DINOv3 ViT-H+/16", "vit_huge_plus_patch16_dinov3"),
        trains=False,
        published={"backbone": "vit_huge_plus_patch16_dinov3"},
        pretrained="DINOv3",
        at_hand="not at hand",
    )
)
def super_add(
    *,
    seed: int = 0,
    image_size: int = 448,
    backbone: str = "vit_small_patch16_dinov3",
    weights: str | None = None,
    tile: int = 448,
    overlap: int = 16,
    blur: float = 4.0,
    score_quantile: float = 1e-3,
    batch_size: int = 8,
) -> Method:
    """SuperADD with anomalib's numbers: tiles of 448 pixels that overlap by 16, four layers by the backbone's size."""
    check_side("anomalib_super_add", image_size, backbone)
    network = timm_name(backbone, weights)
    if not 16 <= overlap < tile / 2 <= image_size / 2 or tile % 16 or overlap % 16:
        got = f"tile={tile}, overlap={overlap}, image_size={image_size}"
        raise ZooError(f"anomalib_super_add: expected 16 <= overlap < tile / 2 <= image_size / 2 in 16s, got {got}.")

    def build(_: Path) -> Any:
        from anomalib.models.image.super_add import SuperADD

        return SuperADD(network, tile, overlap, None, blur, score_quantile, **bare())

    return AnomalibMethod("anomalib_super_add", build, Schedule(image_size, batch_size=batch_size), seed)
