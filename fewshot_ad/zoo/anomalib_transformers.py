"""anomalib's methods on vision transformers. No transformer's weights are at hand: they run on random ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.anomalib_adapter import AnomalibMethod, Schedule, bare, card, timm_name
from fewshot_ad.zoo.method import Method, baseline

_RANDOM = "Random weights, so its numbers mean nothing. The paper's {}: backbone= and weights=FILE take it."


@baseline(
    card(
        "anomaly_dino",
        "AnomalyDINO",
        "Damm et al. 2025, AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2, WACV",
        2025,
        "memory bank",
        _RANDOM.format("DINOv2 ViT-S/14"),
        trains=False,
    )
)
def anomaly_dino(
    *,
    seed: int = 0,
    image_size: int = 448,
    backbone: str = "vit_small_patch14_dinov2",
    weights: str | None = "random",
    neighbours: int = 1,
    masking: bool = False,
    coreset: bool = False,
    coreset_ratio: float = 0.1,
    batch_size: int = 8,
) -> Method:
    """AnomalyDINO. Source: Damm et al. 2025, section 4: 448 pixels, 1 neighbour; without rotated views, as anomalib."""
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models.image.anomaly_dino import AnomalyDINO

        return AnomalyDINO(neighbours, network, masking, coreset, coreset_ratio, **bare())

    return AnomalibMethod("anomalib_anomaly_dino", build, Schedule(image_size, batch_size=batch_size), seed)


@baseline(
    card(
        "dinomaly",
        "Dinomaly",
        "Guo et al. 2025, Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection, CVPR",
        2025,
        "reconstruction",
        _RANDOM.format("DINOv2 ViT-B/14 with registers"),
    )
)
def dinomaly(
    *,
    seed: int = 0,
    image_size: int = 392,
    backbone: str = "vit_small_patch14_reg4_dinov2",
    weights: str | None = "random",
    dropout: float = 0.2,
    decoder_depth: int = 8,
    steps: int = 5000,
    batch_size: int = 16,
) -> Method:
    """Dinomaly. Source: Guo et al. 2025, section 4.1: 392 pixels, batch 16, dropout 0.2; anomalib's 5,000 steps."""
    network = timm_name(backbone, weights)
    _multiple("anomalib_dinomaly", image_size, 14)

    def build(_: Path) -> Any:
        from anomalib.models import Dinomaly

        return Dinomaly(network, dropout, decoder_depth, **bare())

    return AnomalibMethod("anomalib_dinomaly", build, Schedule(image_size, -1, steps, batch_size), seed)


@baseline(
    card(
        "inp_former",
        "INP-Former",
        "Luo et al. 2025, Exploring Intrinsic Normal Prototypes within a Single Image for Universal Anomaly "
        "Detection, CVPR",
        2025,
        "reconstruction",
        _RANDOM.format("DINOv2 ViT-B/14 with registers"),
    )
)
def inp_former(
    *,
    seed: int = 0,
    image_size: int = 392,
    backbone: str = "vit_small_patch14_reg4_dinov2",
    weights: str | None = "random",
    prototypes: int = 6,
    epochs: int = 200,
    batch_size: int = 16,
) -> Method:
    """INP-Former. Source: Luo et al. 2025, section 4.1: 6 prototypes, 200 epochs of 16 at 392 pixels."""
    network = timm_name(backbone, weights)
    _multiple("anomalib_inp_former", image_size, 14)

    def build(_: Path) -> Any:
        from anomalib.models.image.inp_former import InpFormer

        return InpFormer(network, inp_num=prototypes, **bare())

    return AnomalibMethod("anomalib_inp_former", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "general_ad",
        "GeneralAD",
        "Sträter et al. 2024, GeneralAD: Anomaly Detection Across Domains by Attending to Distorted Features, ECCV",
        2024,
        "synthetic anomalies",
        _RANDOM.format("DINOv2 ViT-L/14"),
    )
)
def general_ad(
    *,
    seed: int = 0,
    image_size: int = 518,
    backbone: str = "vit_small_patch14_dinov2",
    weights: str | None = "random",
    layers: Sequence[int] = (12,),
    hidden: int = 2048,
    noise: float = 0.25,
    top_k: int = 10,
    lr: float = 5e-4,
    epochs: int = 160,
    batch_size: int = 8,
) -> Method:
    """GeneralAD with anomalib's numbers: the last layer, noise of 0.25, 160 epochs at 518 pixels."""
    network = timm_name(backbone, weights)
    _multiple("anomalib_general_ad", image_size, 14)

    def build(_: Path) -> Any:
        from anomalib.models.image.general_ad import GeneralAD

        numbers = {"hidden_dim": hidden, "lr": lr, "epochs": epochs, "noise_std": noise, "top_k": top_k}
        return GeneralAD(network, tuple(layers), **numbers, **bare(image_size))  # type: ignore[arg-type]

    return AnomalibMethod("anomalib_general_ad", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "l2bt",
        "L2BT",
        "Costanzino et al. 2025, Learning to Be a Transformer to Pinpoint Anomalies, IEEE Access",
        2025,
        "teacher-student",
        _RANDOM.format("DINOv2 ViT-B/14 with registers"),
    )
)
def l2bt(
    *,
    seed: int = 0,
    image_size: int = 224,
    backbone: str = "vit_small_patch14_reg4_dinov2",
    weights: str | None = "random",
    layers: Sequence[int] = (7, 11),
    topk_ratio: float = 0.001,
    lr: float = 1e-4,
    epochs: int = 50,
    batch_size: int = 4,
) -> Method:
    """L2BT with anomalib's numbers; anomalib states no number of epochs. Photographs are resized, not padded."""
    network = timm_name(backbone, weights)
    _multiple("anomalib_l2bt", image_size, 14)

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib_runtime.offline import OfflineL2BT

        return OfflineL2BT(network, list(layers), lr, topk_ratio)

    return AnomalibMethod("anomalib_l2bt", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "foundad",
        "FoundAD",
        "Zhai et al. 2026, Foundation Visual Encoders Are Secretly Few-Shot Anomaly Detectors, ICLR",
        2026,
        "reconstruction",
        _RANDOM.format("DINOv2 ViT-B/14"),
    )
)
def foundad(
    *,
    seed: int = 0,
    image_size: int = 518,
    backbone: str = "vit_small_patch14_dinov2",
    weights: str | None = "random",
    depth: int = 6,
    width: int = 384,
    layers: int = 3,
    top_k: int = 10,
    dropout: float = 0.2,
    lr: float = 1e-3,
    epochs: int = 100,
    batch_size: int = 8,
) -> Method:
    """FoundAD with anomalib's numbers: a projector of 6 blocks on the third layer from the end, at 518 pixels."""
    network = timm_name(backbone, weights)
    _multiple("anomalib_foundad", image_size, 14)

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib_runtime.offline import OfflineFoundAD

        return OfflineFoundAD(network, image_size, depth, width, layers, top_k, dropout, lr)

    return AnomalibMethod("anomalib_foundad", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "rad",
        "RAD",
        "Zhang et al. 2026, Is Training Necessary for Anomaly Detection?, arXiv:2601.22763",
        2026,
        "memory bank",
        _RANDOM.format("DINOv3 ViT-B/16"),
        trains=False,
    )
)
def rad(
    *,
    seed: int = 0,
    image_size: int = 448,
    backbone: str = "vit_small_patch16_dinov3",
    weights: str | None = "random",
    layers: Sequence[int] = (3, 6, 9, 11),
    photographs: int = 150,
    position_radius: int = 1,
    max_ratio: float = 0.01,
    batch_size: int = 8,
) -> Method:
    """RAD with anomalib's numbers: layers 3, 6, 9 and 11, patches within 1 of the same place, at 448 pixels."""
    network = timm_name(backbone, weights)
    _multiple("anomalib_rad", image_size, 16)

    def build(_: Path) -> Any:
        from anomalib.models.image.rad import Rad

        return Rad(network, list(layers), True, photographs, True, position_radius, max_ratio, **bare())

    return AnomalibMethod("anomalib_rad", build, Schedule(image_size, batch_size=batch_size), seed)


@baseline(
    card(
        "super_add",
        "SuperADD",
        "SuperADD: Training-free Class-agnostic Anomaly Segmentation, 2026, arXiv:2605.14808, CVPR workshops",
        2026,
        "memory bank",
        _RANDOM.format("DINOv3 ViT-H+/16"),
        trains=False,
    )
)
def super_add(
    *,
    seed: int = 0,
    image_size: int = 448,
    backbone: str = "vit_small_patch16_dinov3",
    weights: str | None = "random",
    tile: int = 448,
    overlap: int = 16,
    blur: float = 4.0,
    score_quantile: float = 1e-3,
    batch_size: int = 8,
) -> Method:
    """SuperADD with anomalib's numbers: tiles of 448 pixels that overlap by 16, four layers by the backbone's size."""
    network = timm_name(backbone, weights)
    _multiple("anomalib_super_add", image_size, 16)
    if not 16 <= overlap < tile / 2 <= image_size / 2 or tile % 16 or overlap % 16:
        got = f"tile={tile}, overlap={overlap}, image_size={image_size}"
        raise ZooError(f"anomalib_super_add: expected 16 <= overlap < tile / 2 <= image_size / 2 in 16s, got {got}.")

    def build(_: Path) -> Any:
        from anomalib.models.image.super_add import SuperADD

        return SuperADD(network, tile, overlap, None, blur, score_quantile, **bare())

    return AnomalibMethod("anomalib_super_add", build, Schedule(image_size, batch_size=batch_size), seed)


def _multiple(name: str, image_size: int, patch: int) -> None:
    if image_size % patch:
        raise ZooError(f"{name}: expected an image_size that the patch of {patch} divides, got {image_size}.")
