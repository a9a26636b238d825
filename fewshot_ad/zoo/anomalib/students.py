"""anomalib's teacher and student networks, and CFA and FRE, which also learn to follow a frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.anomalib.adapter import AnomalibMethod, Schedule, card
from fewshot_ad.zoo.anomalib.backbones import timm_name
from fewshot_ad.zoo.anomalib.bare import bare
from fewshot_ad.zoo.components.tensors import Backbone
from fewshot_ad.zoo.method import Method, baseline

# Backbones that its bottleneck fits.
UNINET = ("wide_resnet50_2", "resnet50")

_WEIGHTS = "resnet18 distilled on generated pictures in place of the paper's {}: backbone= and weights=FILE take it."


@baseline(
    card(
        "cfa",
        "CFA",
        "Lee et al. 2022, CFA: Coupled-Hypersphere-Based Feature Adaptation for Target-Oriented Anomaly "
        "Localization, IEEE Access",
        2022,
        "memory bank",
        _WEIGHTS.format("WideResNet-50"),
        published={"backbone": "wide_resnet50_2"},
        pretrained="ImageNet",
    )
)
def cfa(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "resnet18",
    weights: str | None = None,
    gamma_c: int = 1,
    gamma_d: int = 1,
    neighbors: int = 3,
    hard_negatives: int = 3,
    radius: float = 1e-5,
    epochs: int = 30,
    batch_size: int = 4,
) -> Method:
    """CFA. Source: Lee et al. 2022, section IV: 30 epochs of 4, 3 neighbors and 3 hard negatives, r = 1e-5.

    Args:
        seed: Seed of everything random.
        image_size: Side in pixels.
        backbone: resnet18 or wide_resnet50_2: anomalib has it for no other timm network.
        weights: File of a backbone's weights, or `random`.
        gamma_c: Compression of the memory bank.
        gamma_d: Compression of the descriptor.
        neighbors: Centers that attract a patch.
        hard_negatives: Centers that repel it.
        radius: Radius of the hyperspheres.
        epochs: Passes over the images.
        batch_size: Images per batch.
    """
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib.runtime.offline import OfflineCfa, OfflineCfaModel

        numbers = (gamma_c, gamma_d, neighbors, hard_negatives, radius)
        return OfflineCfa(OfflineCfaModel(network, backbone, *numbers), radius)

    return AnomalibMethod("anomalib_cfa", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "fre",
        "FRE",
        "Ndiour et al. 2023, FRE: A Fast Method For Anomaly Detection And Segmentation, BMVC",
        2023,
        "reconstruction",
        _WEIGHTS.format("ResNet-50"),
        published={"backbone": "resnet50"},
        pretrained="ImageNet",
    )
)
def fre(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "resnet18",
    weights: str | None = None,
    stage: int = 3,
    pooling: int = 2,
    latent: int = 220,
    epochs: int = 220,
    batch_size: int = 32,
) -> Method:
    """FRE with anomalib's numbers: a tied linear autoencoder of 220 units over pooled features, 220 epochs."""
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models.image.fre import Fre

        shape = Backbone(backbone, (stage,), "random")  # the autoencoder is as wide as its pooled features
        side = -(-image_size // shape.strides[0]) // pooling
        return Fre(network, stage, True, pooling, shape.channels[0] * side**2, latent, **bare())  # type: ignore[arg-type]

    return AnomalibMethod("anomalib_fre", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "stfpm",
        "STFPM",
        "Wang et al. 2021, Student-Teacher Feature Pyramid Matching for Anomaly Detection, BMVC",
        2021,
        "teacher-student",
        _WEIGHTS.format("ResNet-18 with ImageNet's weights"),
        pretrained="ImageNet",
    )
)
def stfpm(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (1, 2, 3),
    epochs: int = 100,
    batch_size: int = 32,
) -> Method:
    """STFPM. Source: Wang et al. 2021, section 4.1: 100 epochs of 32 at 256 pixels, the first three residual stages."""
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models import Stfpm

        return Stfpm(network, list(stages), **bare())  # type: ignore[arg-type]

    return AnomalibMethod("anomalib_stfpm", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "reverse_distillation",
        "Reverse Distillation",
        "Deng & Li 2022, Anomaly Detection via Reverse Distillation from One-Class Embedding, CVPR",
        2022,
        "teacher-student",
        _WEIGHTS.format("WideResNet-50"),
        published={"backbone": "wide_resnet50_2"},
        pretrained="ImageNet",
    )
)
def reverse_distillation(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "resnet18",
    weights: str | None = None,
    map_mode: str = "add",
    epochs: int = 200,
    batch_size: int = 16,
) -> Method:
    """Reverse distillation. Source: Deng & Li 2022, section 4.1: 200 epochs of 16 at 256 pixels.

    Args:
        seed: Seed of everything random.
        image_size: Side in pixels.
        backbone: A ResNet: anomalib has decoders of ResNets.
        weights: File of a backbone's weights, or `random`.
        map_mode: `add` or `multiply`: how the stages' maps are joined.
        epochs: Passes over the images.
        batch_size: Images per batch.
    """
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models import ReverseDistillation
        from anomalib.models.components import TimmFeatureExtractor
        from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode

        stages = ("layer1", "layer2", "layer3")
        module = ReverseDistillation(backbone, stages, AnomalyMapGenerationMode(map_mode), False, **bare(image_size))
        module.model.encoder = TimmFeatureExtractor(network, stages)
        return module

    schedule = Schedule(image_size, epochs, batch_size=batch_size)
    return AnomalibMethod("anomalib_reverse_distillation", build, schedule, seed)


@baseline(
    card(
        "uninet",
        "UniNet",
        "Wei et al. 2025, UniNet: A Contrastive Learning-guided Unified Framework with Feature Selection for Anomaly "
        "Detection, CVPR",
        2025,
        "teacher-student",
        "Not at hand: its bottleneck fits WideResNet-50 or ResNet-50 only, and weights=FILE takes theirs. "
        "weights='random' runs the code only.",
        pretrained="ImageNet",
        at_hand="not at hand",
    )
)
def uninet(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "wide_resnet50_2",
    weights: str | None = None,
    temperature: float = 0.1,
    epochs: int = 100,
    batch_size: int = 8,
) -> Method:
    """UniNet with anomalib's numbers."""
    if backbone not in UNINET:
        raise ZooError(f"anomalib_uninet: expected {' or '.join(UNINET)} as backbone, got {backbone!r}.")
    network = timm_name(backbone, weights, small=False)

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib.runtime.unified import OfflineUniNet

        return OfflineUniNet(network, backbone, temperature)

    return AnomalibMethod("anomalib_uninet", build, Schedule(image_size, epochs, batch_size=batch_size), seed)
