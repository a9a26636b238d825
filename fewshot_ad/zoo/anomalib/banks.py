"""anomalib's methods that keep features of good images, or their distribution; they take no gradient steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.anomalib.adapter import DISTILLED, AnomalibMethod, Schedule, card
from fewshot_ad.zoo.anomalib.backbones import timm_name
from fewshot_ad.zoo.anomalib.bare import bare
from fewshot_ad.zoo.method import Method, baseline

_WEIGHTS = DISTILLED + " The whole image, no center crop."


@baseline(
    card(
        "patchcore",
        "PatchCore",
        "Roth et al. 2022, Towards Total Recall in Industrial Anomaly Detection, CVPR",
        2022,
        "memory bank",
        _WEIGHTS.format("WideResNet-50"),
        trains=False,
        published={"backbone": "wide_resnet50_2"},
        pretrained="ImageNet",
        departs=("the whole image, no center crop",),
    )
)
def patchcore(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (2, 3),
    coreset_ratio: float = 0.1,
    neighbors: int = 9,
    batch_size: int = 32,
) -> Method:
    """PatchCore. Source: Roth et al. 2022, section 4.1: layers 2 and 3; anomalib's coreset and neighbors."""
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models import Patchcore

        return Patchcore(network, list(stages), True, coreset_ratio, neighbors, **bare())

    return AnomalibMethod("anomalib_patchcore", build, Schedule(image_size, batch_size=batch_size), seed)


@baseline(
    card(
        "mh_patchcore",
        "MH-PatchCore",
        "Mahalanobis PatchCore, preprint of 2026, as contributed to anomalib 2.7 (its issue 3708)",
        2026,
        "memory bank",
        _WEIGHTS.format("WideResNet-50"),
        trains=False,
        published={"backbone": "wide_resnet50_2"},
        pretrained="ImageNet",
        departs=("the whole image, no center crop",),
    )
)
def mh_patchcore(
    *,
    seed: int = 0,
    image_size: int = 224,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (2, 3),
    variance_ratio: float = 0.99,
    shrinkage: float = 0.07,
    bank_size: int = 1000,
    local_coreset: int = 256,
    neighbors: int = 9,
    batch_size: int = 32,
) -> Method:
    """MH-PatchCore with anomalib's own numbers: three passes for the projection, the covariance and the bank."""
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models.image.mh_patchcore import MHPatchcore

        numbers = (variance_ratio, shrinkage, bank_size, local_coreset, neighbors)
        return MHPatchcore(network, list(stages), True, *numbers, **bare())

    return AnomalibMethod("anomalib_mh_patchcore", build, Schedule(image_size, 3, batch_size=batch_size), seed)


@baseline(
    card(
        "padim",
        "PaDiM",
        "Defard et al. 2021, PaDiM: a Patch Distribution Modeling Framework, ICPR workshops",
        2021,
        "distribution",
        _WEIGHTS.format("ResNet-18 or WideResNet-50 with ImageNet's weights"),
        trains=False,
        pretrained="ImageNet",
        departs=("the whole image, no center crop",),
    )
)
def padim(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (1, 2, 3),
    features: int | None = None,
    batch_size: int = 32,
) -> Method:
    """PaDiM. Source: Defard et al. 2021, section IV: 100 random features of ResNet-18, 550 of WideResNet-50."""
    network = timm_name(backbone, weights)
    if features is None:
        features = 550 if backbone.startswith("wide_resnet50_2") else 100

    def build(_: Path) -> Any:
        from anomalib.models import Padim

        return Padim(network, list(stages), True, features, **bare())

    return AnomalibMethod("anomalib_padim", build, Schedule(image_size, batch_size=batch_size), seed)


@baseline(
    card(
        "dfkde",
        "DFKDE",
        "Akcay et al. 2022, Anomalib: A Deep Learning Library for Anomaly Detection, ICIP",
        2022,
        "distribution",
        "lite0 with ImageNet's weights in place of ResNet-18: the shipped resnet18 has no last stage. No center crop. "
        "anomalib's score ends at exactly 1, so images far from all good ones tie.",
        maps=False,
        trains=False,
        published={"backbone": "resnet18"},
        pretrained="ImageNet",
        departs=("the whole image, no center crop",),
    )
)
def dfkde(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "lite0",
    weights: str | None = None,
    stages: Sequence[int] = (4,),
    components: int = 16,
    scaling: str = "scale",
    max_training_points: int = 40000,
    batch_size: int = 32,
) -> Method:
    """Deep-feature kernel density estimation with anomalib's numbers.

    anomalib makes no model of fewer images than components, and a density needs more images than dimensions,
    so a small support set is reduced to two components fewer than it has images.
    """
    network = timm_name(backbone, weights)

    def fewer(module: Any, images: torch.Tensor) -> None:
        from anomalib.models.components.classification import KDEClassifier

        if len(images) < 3:
            raise ZooError(f"anomalib_dfkde: expected at least 3 images for a density, got {len(images)}.")
        count = min(components, len(images) - 2)
        module.model.classifier = KDEClassifier(
            count, module.model.classifier.feature_scaling_method, max_training_points
        )

    def build(_: Path) -> Any:
        from anomalib.models import Dfkde
        from anomalib.models.components.classification import FeatureScalingMethod

        method = FeatureScalingMethod(scaling)
        return Dfkde(network, list(stages), True, components, method, max_training_points, **bare())

    return AnomalibMethod("anomalib_dfkde", build, Schedule(image_size, batch_size=batch_size), seed, fewer)


@baseline(
    card(
        "dfm",
        "DFM",
        "Ahuja et al. 2019, Probabilistic Modeling of Deep Features for Out-of-Distribution and Adversarial "
        "Detection, NeurIPS workshops",
        2019,
        "distribution",
        _WEIGHTS.format("ResNet-50"),
        trains=False,
        published={"backbone": "resnet50"},
        pretrained="ImageNet",
        departs=("the whole image, no center crop",),
    )
)
def dfm(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "resnet18",
    weights: str | None = None,
    stage: int = 3,
    pooling: int = 4,
    pca_level: float = 0.97,
    score: Literal["fre", "nll"] = "fre",
    batch_size: int = 32,
) -> Method:
    """Deep feature modeling with anomalib's numbers.

    Args:
        seed: Seed of everything random.
        image_size: Side in pixels.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stage: Stage whose features are modeled.
        pooling: Side of the average pooling.
        pca_level: Share of the variance that the principal components explain.
        score: `fre`: feature reconstruction error after PCA, with a map; `nll`: negative log-likelihood of a Gaussian
            after PCA, without one.
        batch_size: Images per batch.
    """
    if score not in ("fre", "nll"):
        raise ZooError(f"anomalib_dfm: expected score 'fre' or 'nll', got {score!r}.")
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models import Dfm

        from fewshot_ad.zoo.anomalib.runtime.offline import Gaussian

        module = Dfm(network, stage, True, pooling, pca_level, score, **bare())  # type: ignore[arg-type]
        module.model.gaussian_model = Gaussian()
        return module

    return AnomalibMethod("anomalib_dfm", build, Schedule(image_size, batch_size=batch_size), seed)
