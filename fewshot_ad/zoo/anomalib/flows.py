"""anomalib's normalizing flows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.anomalib.adapter import DISTILLED, AnomalibMethod, Schedule, card
from fewshot_ad.zoo.anomalib.backbones import from_imagenet, timm_name
from fewshot_ad.zoo.anomalib.bare import bare
from fewshot_ad.zoo.components.tensors import Backbone
from fewshot_ad.zoo.method import FROM_TIMM, Method, baseline

# U-Flow's transformers, of which as many blocks are computed, and the side of the image that they were trained for.
CAITS = (("cait_m48_448", 41), ("cait_s24_224", 21))
CAIT_SIDE = 448


class _SupportScale(torch.nn.Module):
    """CFLOW's map with the likelihoods scaled by the largest of the support images.

    anomalib scales by the largest of its batch. For one image that is the image's own, so an image that is anomalous
    everywhere would look good.
    """

    largest: torch.Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.register_buffer("largest", torch.full((levels,), -torch.inf))
        self.learning = True

    def forward(
        self, distribution: list[torch.Tensor], height: list[int], width: list[int], image_size: Any
    ) -> torch.Tensor:
        if self.learning:
            self.largest = torch.maximum(self.largest, torch.stack([level.max() for level in distribution]))
        maps = []
        for level, largest, h, w in zip(distribution, self.largest, height, width, strict=True):
            likelihood = (level - largest).clamp_max(0).exp().reshape(-1, 1, h, w)
            maps.append(functional.interpolate(likelihood, image_size, mode="bilinear", align_corners=True))
        return len(maps) - torch.stack(maps).sum(0)[:, 0]


@baseline(
    card(
        "cflow",
        "CFLOW-AD",
        "Gudovskiy et al. 2022, CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via "
        "Conditional Normalizing Flows, WACV",
        2022,
        "normalizing flow",
        DISTILLED.format("WideResNet-50 with stages 2 to 4") + " Stages 1 to 3. Likelihoods are "
        "scaled by the largest of the support images, where the authors take the whole test set's.",
        published={"backbone": "wide_resnet50_2", "stages": (2, 3, 4)},
        pretrained="ImageNet",
        departs=("likelihoods scaled by the support images, not by the test set",),
        loss_tells=False,
    )
)
def cflow(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (1, 2, 3),
    fiber_batch: int = 64,
    condition: int = 128,
    coupling_blocks: int = 8,
    clamp: float = 1.9,
    lr: float = 1e-4,
    epochs: int = 50,
    batch_size: int = 32,
) -> Method:
    """CFLOW-AD. Source: Gudovskiy et al. 2022, section 4: 8 coupling blocks, condition of 128; the rest anomalib's."""
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models import Cflow

        numbers = (fiber_batch, "freia-cflow", condition, coupling_blocks, clamp, False, lr)
        return Cflow(network, list(stages), True, *numbers, **bare())

    def put_scale(module: Any) -> None:
        module.model.anomaly_map_generator = _SupportScale(len(stages))
        module.model.anomaly_map_generator.learning = False

    def scale(module: Any, images: torch.Tensor) -> None:
        put_scale(module)
        module.model.anomaly_map_generator.learning = True
        with torch.no_grad():
            for image in images:
                module.model(image[None])
        module.model.anomaly_map_generator.learning = False

    schedule = Schedule(image_size, epochs, batch_size=batch_size)
    return AnomalibMethod("anomalib_cflow", build, schedule, seed, finish=scale, restructure=put_scale)


@baseline(
    card(
        "csflow",
        "CS-Flow",
        "Rudolph et al. 2022, Fully Convolutional Cross-Scale-Flows for Image-based Defect Detection, WACV",
        2022,
        "normalizing flow",
        "lite0 with ImageNet's weights in place of EfficientNet-B5: the first 304 of its last stage's 320 channels, "
        "because anomalib's flow is built for the 304 of B5's.",
        published={"backbone": "tf_efficientnet_b5"},
        pretrained="ImageNet",
    )
)
def csflow(
    *,
    seed: int = 0,
    image_size: int = 768,
    backbone: str = "lite0",
    weights: str | None = None,
    stage: int = 4,
    hidden_channels: int = 1024,
    coupling_blocks: int = 4,
    clamp: float = 3,
    epochs: int = 240,
    batch_size: int = 16,
) -> Method:
    """CS-Flow. Source: Rudolph et al. 2022, section 4: 4 blocks, clamping at 3, 768 pixels, 240 epochs of 16.

    Raises:
        ZooError: The images do not halve seven times.
    """
    network = timm_name(backbone, weights)
    if image_size % 128:
        raise ZooError(f"anomalib_csflow: expected an image_size that 128 divides, got {image_size}.")

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib.runtime.offline import OfflineCsflow

        return OfflineCsflow(network, stage, image_size, hidden_channels, coupling_blocks, clamp)

    return AnomalibMethod("anomalib_csflow", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "fastflow",
        "FastFlow",
        "Yu et al. 2021, FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows, "
        "arXiv:2111.07677",
        2021,
        "normalizing flow",
        DISTILLED.format("CaiT, DeiT, ResNet-18 or WideResNet-50 with ImageNet's weights"),
        pretrained="ImageNet",
    )
)
def fastflow(
    *,
    seed: int = 0,
    image_size: int = 256,
    backbone: str = "resnet18",
    weights: str | None = None,
    flow_steps: int = 8,
    conv3x3_only: bool = False,
    hidden_ratio: float = 1.0,
    epochs: int = 500,
    batch_size: int = 32,
) -> Method:
    """FastFlow. Source: Yu et al. 2021, section 4: 8 flow steps on a ResNet, 500 epochs of 32.

    Args:
        seed: Seed of everything random.
        image_size: Side in pixels.
        backbone: resnet18 or wide_resnet50_2: anomalib has it for no other convolutional network.
        weights: File of a backbone's weights, or `random`.
        flow_steps: Steps of the flow, per stage.
        conv3x3_only: Whether there are no 1x1 kernels in between.
        hidden_ratio: Width of the subnets.
        epochs: Passes over the images.
        batch_size: Images per batch.
    """
    timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models import Fastflow

        module = Fastflow(backbone, False, flow_steps, conv3x3_only, hidden_ratio, **bare(image_size))
        module.model.feature_extractor = from_imagenet(Backbone(backbone, (1, 2, 3), weights))
        return module

    return AnomalibMethod("anomalib_fastflow", build, Schedule(image_size, epochs, batch_size=batch_size), seed)


@baseline(
    card(
        "uflow",
        "U-Flow",
        "Tailanian et al. 2024, U-Flow: A U-Shaped Normalizing Flow for Anomaly Detection with Unsupervised "
        "Threshold, Journal of Mathematical Imaging and Vision",
        2024,
        "normalizing flow",
        "resnet18 distilled on generated pictures (or lite0 with ImageNet's weights) in place of the paper's two CaiT "
        "transformers, which run with backbone=mcait and weights=FOLDER of cait_m48_448 and cait_s24_224 "
        "(.safetensors or .pth).",
        published={"backbone": "mcait"},
        pretrained="ImageNet",
    )
)
def uflow(
    *,
    seed: int = 0,
    image_size: int = 448,
    backbone: str = "resnet18",
    weights: str | None = None,
    stages: Sequence[int] = (1, 2, 3),
    flow_steps: int = 4,
    clamp: float = 2.0,
    hidden_ratio: float = 1.0,
    epochs: int = 200,
    batch_size: int = 8,
) -> Method:
    """U-Flow. Source: Tailanian et al. 2024, section 4: 4 flow steps per scale; anomalib's 200 epochs at 448 pixels.

    The learning rate falls to 0.4 of itself over anomalib's 25,000 batches, which a small support set does not reach.
    `stages` are those of a backbone other than `mcait`, the paper's pair of transformers.
    """
    networks = _caits(weights, image_size) if backbone == "mcait" else None
    network = timm_name(backbone, weights) if networks is None else ""

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib.runtime.offline import OfflineUflow, OfflineUflowModel, UflowCaits, UflowStages

        features = (
            UflowCaits(networks, image_size) if networks is not None else UflowStages(network, list(stages), image_size)
        )
        return OfflineUflow(OfflineUflowModel(features, image_size, flow_steps, clamp, hidden_ratio))

    schedule = Schedule(image_size, epochs, batch_size=batch_size, rate_per="step")
    return AnomalibMethod("anomalib_uflow", build, schedule, seed)


def _caits(weights: str | None, image_size: int) -> tuple[tuple[str, int], tuple[str, int]]:
    """The paper's two transformers by the names under which timm makes them, and how many blocks are computed.

    Raises:
        WeightsError: There are no weights for them.
        ZooError: The size of the images is another than that of the weights.
    """
    if weights is None:
        raise WeightsError(
            "anomalib_uflow: expected the weights of cait_m48_448 and cait_s24_224, which are not at hand. Give "
            "weights=FOLDER that holds them (.safetensors or .pth), or weights='timm'; weights='random' runs the code, "
            "but its figures mean nothing."
        )
    if image_size % 32 or (weights != "random" and image_size != CAIT_SIDE):
        raise ZooError(f"anomalib_uflow: expected image_size {CAIT_SIDE} with backbone mcait, got {image_size}.")
    (large, blocks), (small, fewer) = CAITS
    return (timm_name(large, _of_cait(large, weights)), blocks), (timm_name(small, _of_cait(small, weights)), fewer)


def _of_cait(network: str, weights: str) -> str:
    if weights in ("random", FROM_TIMM):
        return weights
    files = [Path(weights) / f"{network}{suffix}" for suffix in (".safetensors", ".pth")]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise WeightsError(f"anomalib_uflow: expected {files[0].name} or {files[1].name} in {weights}, found neither.")
    return str(found)


@baseline(
    card(
        "patchflow",
        "PatchFlow",
        "Zhang et al. 2026, PatchFlow: Leveraging a Flow-Based Model with Patch Features, arXiv:2602.05238",
        2026,
        "normalizing flow",
        "lite0 with ImageNet's weights in place of EfficientNet-B5, which runs with backbone=tf_efficientnet_b5 and "
        "weights=FILE.",
        published={"backbone": "tf_efficientnet_b5"},
        pretrained="ImageNet",
    )
)
def patchflow(
    *,
    seed: int = 0,
    image_size: int = 768,
    backbone: str = "lite0",
    weights: str | None = None,
    flow_steps: int = 1,
    flow_channels: int = 128,
    scales: int = 3,
    patch: int = 3,
    hidden_channels: int = 128,
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    epochs: int = 200,
    batch_size: int = 32,
) -> Method:
    """PatchFlow with the numbers of anomalib's configuration for EfficientNet-B5; it reads stages 2, 3 and 4."""
    network = timm_name(backbone, weights)

    def build(_: Path) -> Any:
        from anomalib.models.image.patchflow import Patchflow

        shape = (flow_steps, flow_channels, scales, patch, hidden_channels, None)
        return Patchflow(network, True, *shape, lr, weight_decay, **bare(image_size))

    return AnomalibMethod("anomalib_patchflow", build, Schedule(image_size, epochs, batch_size=batch_size), seed)
