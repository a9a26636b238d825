"""anomalib's methods that learn from synthetic defects, and GANomaly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.anomalib.adapter import DISTILLED, AnomalibMethod, Schedule, card
from fewshot_ad.zoo.anomalib.backbones import timm_name
from fewshot_ad.zoo.anomalib.bare import bare
from fewshot_ad.zoo.method import Method, baseline
from fewshot_ad.zoo.simplenet import NOISE_SHARE

_TEXTURES = "Generated textures in place of the Describable Textures Dataset, which anomalib downloads."


@baseline(
    card(
        "draem",
        "DRÆM",
        "Zavrtanik et al. 2021, DRAEM: A Discriminatively Trained Reconstruction Embedding for Surface Anomaly "
        "Detection, ICCV",
        2021,
        "synthetic anomalies",
        "No pretrained weights, as in the paper. " + _TEXTURES,
        needs_internet=False,
        departs=("generated textures, not the Describable Textures Dataset",),
    )
)
def draem(
    *,
    seed: int = 0,
    image_size: int = 256,
    blend: tuple[float, float] = (0.1, 1.0),
    sspcab: bool = False,
    sspcab_lambda: float = 0.1,
    textures: int = 256,
    epochs: int = 700,
    batch_size: int = 8,
) -> Method:
    """DRÆM. Source: Zavrtanik et al. 2021, section 4.1: 700 epochs of 8, rate 1e-4, a tenth after 400 and after 600."""
    _divisible("anomalib_draem", image_size, 32)
    _at_least_one_texture("anomalib_draem", textures)
    if not 0 <= blend[0] <= blend[1] <= 1:
        raise ZooError(f"anomalib_draem: expected blend as two shares in 0..1, the smaller first, got {list(blend)}.")

    def build(folder: Path) -> Any:
        from anomalib.models import Draem

        return Draem(folder / "textures", sspcab, sspcab_lambda, tuple(blend), **bare())  # type: ignore[arg-type]

    schedule = Schedule(image_size, epochs, -1, batch_size, standardized=False, textures=textures)
    return AnomalibMethod("anomalib_draem", build, schedule, seed)


@baseline(
    card(
        "dsr",
        "DSR",
        "Zavrtanik et al. 2022, DSR: A Dual Subspace Re-Projection Network for Surface Anomaly Detection, ECCV",
        2022,
        "synthetic anomalies",
        "Its discrete latent model is trained here, in latent_steps steps on generated pictures: the paper's is "
        "trained on ImageNet. latent_weights=FILE takes anomalib's.",
        pretrained="on ImageNet",
        at_hand="of the latent model trained here on generated images",
        stops_early=False,
    )
)
def dsr(
    *,
    seed: int = 0,
    image_size: int = 256,
    latent_weights: str | None = None,
    latent_steps: int = 500,
    latent_anomaly_strength: float = 0.2,
    upsampling_train_ratio: float = 0.7,
    epochs: int = 700,
    batch_size: int = 8,
) -> Method:
    """DSR with anomalib's numbers: 700 epochs, of which the last three tenths train the upsampling.

    The rate of what is trained before falls to a tenth after four fifths of its epochs.
    """
    _divisible("anomalib_dsr", image_size, 32)

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib.runtime.pretraining import OfflineDsr, load, pretrain_latent

        module = OfflineDsr(latent_anomaly_strength, upsampling_train_ratio, **bare())
        latent = module.model.discrete_latent_model
        if latent_weights is None:
            pretrain_latent(latent, latent_steps, image_size, seed)
        elif latent_weights != "random":
            load(latent, latent_weights)
        return module

    schedule = Schedule(image_size, epochs, -1, batch_size, standardized=False)
    return AnomalibMethod("anomalib_dsr", build, schedule, seed)


@baseline(
    card(
        "glass",
        "GLASS",
        "Chen et al. 2024, A Unified Anomaly Synthesis Strategy with Gradient Ascent for Industrial Anomaly Detection "
        "and Localization, ECCV",
        2024,
        "synthetic anomalies",
        DISTILLED.format("WideResNet-50") + " " + _TEXTURES,
        published={"backbone": "wide_resnet50_2"},
        pretrained="ImageNet",
        departs=("generated textures, not the Describable Textures Dataset",),
        stops_early=False,
    )
)
def glass(
    *,
    seed: int = 0,
    image_size: int = 288,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (2, 3),
    embedding: int = 1536,
    hidden: int = 1024,
    noise: float = 0.015,
    ascent_steps: int = 20,
    radius_quantile: float = 0.75,
    mining: bool = True,
    svd: bool = False,
    lr: float = 1e-4,
    textures: int = 256,
    epochs: int = 640,
    batch_size: int = 8,
) -> Method:
    """GLASS. Source: the authors' public run scripts: noise of 0.015, 20 ascent steps, 640 epochs of 8 at 288 pixels.

    Args:
        seed: Seed of everything random.
        image_size: Side in pixels.
        backbone: See `tensors.Backbone`.
        weights: File of a backbone's weights, or `random`.
        stages: Stages of the backbone whose features are used.
        embedding: Width of the features per patch.
        hidden: Width of the discriminator.
        noise: Standard deviation of the noise on features.
        ascent_steps: Steps of gradient ascent on that noise.
        radius_quantile: With svd, quantile of the distances to the center: synthetic features stay outside this radius.
        mining: Whether there is gradient ascent at all.
        svd: Features on a hypersphere instead of a manifold: the authors choose by the product.
        lr: Learning rate of the projection; the discriminator's is twice that.
        textures: Number of generated textures.
        epochs: Passes over the images; anomalib's own results are of 100.
        batch_size: Images per batch.
    """
    network = timm_name(backbone, weights)
    _at_least_one_texture("anomalib_glass", textures)

    def build(folder: Path) -> Any:
        from anomalib.models.image.glass import Glass

        return Glass(
            (image_size, image_size),
            str(folder / "textures"),
            network,
            embedding,
            embedding,
            layers=list(stages),  # type: ignore[arg-type]
            discriminator_hidden=hidden,
            learning_rate=lr,
            step=ascent_steps,
            svd=int(svd),
            gaussian_noise_std=noise,
            radius_quantile=radius_quantile,
            mining=mining,
            **bare(),
        )

    schedule = Schedule(image_size, epochs, batch_size=batch_size, textures=textures)
    return AnomalibMethod("anomalib_glass", build, schedule, seed)


@baseline(
    card(
        "supersimplenet",
        "SuperSimpleNet",
        "Rolih et al. 2024, SuperSimpleNet: Unifying Unsupervised and Supervised Learning for Fast and Reliable "
        "Surface Defect Detection, ICPR",
        2024,
        "synthetic anomalies",
        DISTILLED.format("WideResNet-50"),
        published={"backbone": "wide_resnet50_2", "noise": 0.015},
        pretrained="ImageNet",
    )
)
def supersimplenet(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (2, 3),
    noise: float | None = None,
    perlin_threshold: float = 0.2,
    adapt_cls_features: bool = False,
    epochs: int = 300,
    batch_size: int = 32,
) -> Method:
    """SuperSimpleNet, unsupervised. Source: Rolih et al. 2024, section 4: 300 epochs of 32; Perlin threshold 0.2.

    Args:
        seed: Seed of everything random.
        image_size: Side in pixels.
        backbone: See `tensors.Backbone`.
        weights: File of a backbone's weights, or `random`.
        stages: Stages of the backbone whose features are used.
        noise: Standard deviation of the noise, in units of the features; None is a fifth of their root mean square, as
            of `simplenet`: 0.015, as published, is too little among the distilled features to be told from nothing.
        perlin_threshold: Above it there is noise, where a map of Perlin noise is.
        adapt_cls_features: Whether the score is of adapted features, too, as in the conference's paper.
        epochs: Passes over the images.
        batch_size: Images per batch.

    Raises:
        ZooError: The noise is not above 0.
    """
    if noise is not None and noise <= 0:
        raise ZooError(f"anomalib_supersimplenet: expected noise above 0, got {noise}.")
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models import Supersimplenet

        from fewshot_ad.zoo.anomalib.runtime.feature_noise import RelativeNoise

        model = Supersimplenet(perlin_threshold, network, list(stages), False, adapt_cls_features, **bare())  # type: ignore[arg-type]
        if noise is None:
            model.model.anomaly_generator = RelativeNoise(NOISE_SHARE, perlin_threshold)
        else:
            model.model.anomaly_generator.noise_std = noise
        return model

    return AnomalibMethod("anomalib_supersimplenet", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "ganomaly",
        "GANomaly",
        "Akcay et al. 2018, GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training, ACCV",
        2018,
        "generative",
        "No pretrained weights, as in the paper.",
        maps=False,
        needs_internet=False,
        published={"image_size": 32, "epochs": 15, "batch_size": 64},
        loss_tells=False,
    )
)
def ganomaly(
    *,
    seed: int = 0,
    image_size: int = 256,
    features: int = 64,
    latent: int = 100,
    extra_layers: int = 0,
    adversarial_weight: int = 1,
    contextual_weight: int = 50,
    encoder_weight: int = 1,
    lr: float = 2e-4,
    epochs: int = 100,
    batch_size: int = 32,
) -> Method:
    """GANomaly. Source: Akcay et al. 2018, section 4: weights 1, 50 and 1, rate 2e-4, latent of 100; anomalib's epochs.

    Raises:
        ZooError: The images do not halve down to four pixels.
    """
    if image_size < 32 or image_size & (image_size - 1):
        raise ZooError(f"anomalib_ganomaly: expected an image_size that is a power of two from 32, got {image_size}.")

    def build(_: Path) -> Any:
        from anomalib.models import Ganomaly

        terms = (adversarial_weight, contextual_weight, encoder_weight)
        return Ganomaly(batch_size, features, latent, extra_layers, True, *terms, lr, **bare(image_size))

    return AnomalibMethod("anomalib_ganomaly", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


def _divisible(name: str, image_size: int, by: int) -> None:
    if image_size % by:
        raise ZooError(f"{name}: expected an image_size that {by} divides, got {image_size}.")


def _at_least_one_texture(name: str, textures: int) -> None:
    """Without one, anomalib would fetch a data set in their place."""
    if textures < 1:
        raise ZooError(f"{name}: expected textures of at least 1, got {textures}.")
