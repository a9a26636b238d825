"""anomalib's methods that learn on the features of a vision transformer.

The weights of transformers do not come with the package: weights=FILE takes them, and weights='random' runs the code
only. Where the paper's transformer is larger than a ViT-B, the default is a ViT-S: backbone= takes the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.anomalib.adapter import AnomalibMethod, Schedule, card
from fewshot_ad.zoo.anomalib.backbones import timm_name
from fewshot_ad.zoo.anomalib.bare import bare
from fewshot_ad.zoo.method import Method, baseline

NOT_AT_HAND = "Not at hand: weights=FILE takes the paper's, {}; weights='random' runs the code only."
SMALLER = (
    "Not at hand: weights=FILE takes those of a ViT-S, in place of the paper's {}, which is too large for most CPUs; "
    "backbone={} and weights=FILE take the paper's. weights='random' runs the code only."
)


@baseline(
    card(
        "dinomaly",
        "Dinomaly",
        "Guo et al. 2025, Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection, CVPR",
        2025,
        "reconstruction",
        NOT_AT_HAND.format("DINOv2 ViT-B/14 with registers"),
        pretrained="DINOv2 with registers",
        at_hand="not at hand",
        departs=("resized to the input size, not cropped from 448 pixels",),
    )
)
def dinomaly(
    *,
    seed: int = 0,
    image_size: int = 392,
    backbone: str = "vit_base_patch14_reg4_dinov2",
    weights: str | None = None,
    dropout: float = 0.2,
    decoder_depth: int = 8,
    steps: int = 5000,
    batch_size: int = 16,
) -> Method:
    """Dinomaly. Source: Guo et al. 2025, section 4.1: 392 pixels, batch 16, dropout 0.2; anomalib's 5,000 steps."""
    check_side("anomalib_dinomaly", image_size, backbone)
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models import Dinomaly

        return Dinomaly(network, dropout, decoder_depth, **bare())

    schedule = Schedule(image_size, -1, steps, batch_size, rate_per="step")
    return AnomalibMethod("anomalib_dinomaly", build, schedule, seed)


@baseline(
    card(
        "inp_former",
        "INP-Former",
        "Luo et al. 2025, Exploring Intrinsic Normal Prototypes within a Single Image for Universal Anomaly "
        "Detection, CVPR",
        2025,
        "reconstruction",
        NOT_AT_HAND.format("DINOv2 ViT-B/14 with registers"),
        pretrained="DINOv2 with registers",
        at_hand="not at hand",
        departs=("resized to the input size, not cropped from 448 pixels",),
    )
)
def inp_former(
    *,
    seed: int = 0,
    image_size: int = 392,
    backbone: str = "vit_base_patch14_reg4_dinov2",
    weights: str | None = None,
    prototypes: int = 6,
    epochs: int = 200,
    batch_size: int = 16,
) -> Method:
    """INP-Former. Source: Luo et al. 2025, section 4.1: 6 prototypes, 200 epochs of 16 at 392 pixels."""
    check_side("anomalib_inp_former", image_size, backbone)
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models.image.inp_former import InpFormer

        return InpFormer(network, inp_num=prototypes, **bare())

    schedule = Schedule(image_size, epochs, batch_size=batch_size, rate_per="step")
    return AnomalibMethod("anomalib_inp_former", build, schedule, seed)


@baseline(
    card(
        "general_ad",
        "GeneralAD",
        "Sträter et al. 2024, GeneralAD: Anomaly Detection Across Domains by Attending to Distorted Features, ECCV",
        2024,
        "synthetic anomalies",
        SMALLER.format("DINOv2 ViT-L/14", "vit_large_patch14_dinov2"),
        published={"backbone": "vit_large_patch14_dinov2"},
        pretrained="DINOv2",
        at_hand="not at hand",
    )
)
def general_ad(
    *,
    seed: int = 0,
    image_size: int = 518,
    backbone: str = "vit_small_patch14_dinov2",
    weights: str | None = None,
    layers: Sequence[int] | None = None,
    hidden: int = 2048,
    noise: float = 0.25,
    top_k: int = 10,
    lr: float = 5e-4,
    epochs: int = 160,
    batch_size: int = 8,
) -> Method:
    """GeneralAD with anomalib's numbers: noise of 0.25, 160 epochs at 518 pixels.

    Args:
        seed: Seed of everything random.
        image_size: Side in pixels, which the patch divides.
        backbone: A vision transformer of timm.
        weights: File of the backbone's weights, or `random` to run the code only.
        layers: Layers whose features are used, counted from 1; None takes the last, as in the paper's ViT-L.
        hidden: Width of the discriminator.
        noise: Standard deviation of the noise on features.
        top_k: Patches that make the image score.
        lr: Learning rate, which falls to a fifth of it over the epochs.
        epochs: Passes over the images.
        batch_size: Images per batch.
    """
    check_side("anomalib_general_ad", image_size, backbone)
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models.image.general_ad import GeneralAD

        numbers = {"hidden_dim": hidden, "lr": lr, "epochs": epochs, "noise_std": noise, "top_k": top_k}
        indices = (_depth(network),) if layers is None else tuple(layers)
        return GeneralAD(network, indices, **numbers, **bare(image_size))  # type: ignore[arg-type]

    return AnomalibMethod("anomalib_general_ad", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "l2bt",
        "L2BT",
        "Costanzino et al. 2025, Learning to Be a Transformer to Pinpoint Anomalies, IEEE Access",
        2025,
        "teacher-student",
        NOT_AT_HAND.format("DINOv2 ViT-B/14 with registers"),
        pretrained="DINOv2 with registers",
        at_hand="not at hand",
        departs=("resized, not padded",),
    )
)
def l2bt(
    *,
    seed: int = 0,
    image_size: int = 224,
    backbone: str = "vit_base_patch14_reg4_dinov2",
    weights: str | None = None,
    layers: Sequence[int] = (7, 11),
    topk_ratio: float = 0.001,
    lr: float = 1e-4,
    epochs: int = 50,
    batch_size: int = 4,
) -> Method:
    """L2BT with anomalib's numbers: 224 pixels, rate 1e-4, 50 epochs. Images are resized, not padded."""
    check_side("anomalib_l2bt", image_size, backbone)
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib.runtime.offline import OfflineL2BT

        return OfflineL2BT(network, list(layers), lr, topk_ratio)

    return AnomalibMethod("anomalib_l2bt", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "foundad",
        "FoundAD",
        "Zhai et al. 2026, Foundation Visual Encoders Are Secretly Few-Shot Anomaly Detectors, ICLR",
        2026,
        "reconstruction",
        "Not at hand: weights=FILE takes anomalib's, DINOv2 ViT-B/14. The paper's DINOv3 ViT-B/16 at 512 pixels: "
        "backbone=vit_base_patch16_dinov3, image_size=512 and weights=FILE. weights='random' runs the code only.",
        published={"backbone": "vit_base_patch16_dinov3", "image_size": 512, "epochs": 4000},
        pretrained="DINOv3",
        at_hand="not at hand",
    )
)
def foundad(
    *,
    seed: int = 0,
    image_size: int = 518,
    backbone: str = "vit_base_patch14_dinov2",
    weights: str | None = None,
    depth: int = 6,
    width: int = 384,
    layers: int = 3,
    top_k: int = 10,
    dropout: float = 0.2,
    lr: float = 1e-3,
    epochs: int = 2000,
    batch_size: int = 8,
) -> Method:
    """FoundAD with anomalib's numbers: a projector of 6 blocks on the third layer from the end, at 518 pixels.

    2,000 epochs of 8, as in the authors' public configuration and in anomalib's results; by anomalib's account the
    paper's took 4,000.
    """
    check_side("anomalib_foundad", image_size, backbone)
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib.runtime.offline import OfflineFoundAD

        return OfflineFoundAD(network, image_size, depth, width, layers, top_k, dropout, lr)

    return AnomalibMethod("anomalib_foundad", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


def check_side(name: str, image_size: int, backbone: str) -> None:
    """Refuse a side that the patch of a transformer does not divide.

    Args:
        name: Name of the baseline.
        image_size: Side in pixels.
        backbone: Name in timm, which states the patch.

    Raises:
        ZooError: The patch does not divide the side, or the backbone is no transformer.
    """
    patch = re.search(r"patch(\d+)", backbone)
    if patch is None:
        raise ZooError(
            f"{name}: expected a vision transformer of timm such as vit_base_patch14_dinov2, got {backbone!r}."
        )
    if image_size % int(patch[1]):
        raise ZooError(f"{name}: expected an image_size that the patch of {patch[1]} divides, got {image_size}.")


def _depth(network: str) -> int:
    with torch.device("meta"):
        return len(timm.create_model(network).blocks)
