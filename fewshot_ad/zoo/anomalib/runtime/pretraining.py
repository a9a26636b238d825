"""The networks that EfficientAD and DSR expect to be pretrained: trained here on generated pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from anomalib.models import Dsr, EfficientAd
from anomalib.models.image.dsr.torch_model import DiscreteLatentModel, VectorQuantizer
from torch import nn
from torch.nn import functional

from fewshot_ad.encoder.state_dict import read_state_dict
from fewshot_ad.errors import WeightsError
from fewshot_ad.zoo.anomalib.textures import generated_pictures
from fewshot_ad.zoo.components.pdn import BORDER, RATE, STAGES, WEIGHT_DECAY, load_teacher, targets
from fewshot_ad.zoo.components.tensors import Backbone, missing_tensors, to_batch
from fewshot_ad.zoo.components.training import train_steps

PICTURES = 64
BATCH = 4
LATENT_RATE = 2e-4


class OfflineEfficientAd(EfficientAd):
    """EfficientAD whose teacher already has its weights."""

    def prepare_pretrained_model(self) -> None:
        """Nothing to fetch."""


class OfflineDsr(Dsr):
    """DSR whose discrete latent model already has its weights."""

    def on_train_start(self) -> None:
        """Nothing to fetch."""


def load(network: nn.Module, weights: str) -> None:
    """Fill a network from a file of its state dict.

    Raises:
        WeightsError: The file is of another network.
    """
    state = read_state_dict(Path(weights))
    missing = missing_tensors(network, state)
    if missing:
        raise WeightsError(f"{weights} is of another network: it lacks {len(missing)} tensors, first {missing[0]}.")
    network.load_state_dict({key: state[key] for key in network.state_dict()})


def take_teacher(network: nn.Module, file: Path, size: str) -> None:
    """Fill EfficientAD's patch description network from a file of efficientad_cdo, whose teacher has the same layers.

    Args:
        network: anomalib's, of 384 channels.
        file: Written by `pdn.save_teacher`.
        size: `S` or `M`.

    Raises:
        ZooError: It is no such file, or of another size.
    """
    for n, layer in enumerate(load_teacher(file, {"size": size}).layers, start=1):
        network.get_submodule(f"conv{n}").load_state_dict(layer.state_dict())
    network.requires_grad_(False)


def distill_teacher(teacher: nn.Module, steps: int, side: int, seed: int) -> None:
    """Teach EfficientAD's patch description network the features of the shipped resnet18.

    Args:
        teacher: (N, 3, H, W) in 0..1 -> (N, 384, H / 4 - 8, W / 4 - 8).
        steps: Gradient steps, 4 pictures each; 0 makes the model one that is trained here, and leaves it at that.
        side: Side of the pictures, in pixels.
        seed: Seed of the pictures and their order.

    Source: Batzner et al. 2024, EfficientAD, algorithm 2, with another target: stages 2 and 3 of the shipped resnet18,
    128 + 256 channels, for the 384 of WideResNet-101, and generated pictures for ImageNet's.
    """
    backbone = Backbone("resnet18", STAGES)
    pictures = to_batch(generated_pictures(PICTURES, side, seed), side)
    with torch.no_grad():
        # The network without padding looks at the middle: its first cell is the fifth of a grid of stride 4.
        features = torch.cat([targets(backbone, pictures[i : i + 1]) for i in range(PICTURES)])
        features = features[..., BORDER:-BORDER, BORDER:-BORDER]
    mean, deviation = features.mean((0, 2, 3), keepdim=True), features.std((0, 2, 3), keepdim=True)
    features = (features - mean) / deviation.clamp_min(1e-6)
    rng = np.random.default_rng([seed, 31])

    def loss() -> torch.Tensor:
        batch = rng.integers(PICTURES, size=BATCH)
        return functional.mse_loss(teacher(pictures[batch]), features[batch])

    train_steps(loss, steps, [torch.optim.Adam(teacher.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)])
    teacher.requires_grad_(False)


def pretrain_latent(model: DiscreteLatentModel, steps: int, side: int, seed: int) -> None:
    """Train DSR's discrete latent model to reconstruct generated pictures.

    Args:
        model: (N, 3, H, W) in 0..1 -> its outputs, `recon_image` among them.
        steps: Gradient steps, 4 pictures each; 0 makes the model one that is trained here, and leaves it at that.
        side: Side of the pictures, in pixels.
        seed: Seed of the pictures and their order.

    Source: van den Oord et al. 2017, Neural Discrete Representation Learning, equation 3, with both commitment terms
    at their weights 1 and 0.25; Zavrtanik et al. 2022, DSR, section 3.1.
    """
    # anomalib never trains this model and overwrites activations that gradients need.
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    if steps == 0:
        return
    pictures = to_batch(generated_pictures(PICTURES, side, seed), side)
    latents: list[tuple[VectorQuantizer, torch.Tensor]] = []
    hooks = [
        quantizer.register_forward_pre_hook(lambda module, inputs: latents.append((module, inputs[0])))
        for quantizer in (model.vq_vae_top, model.vq_vae_bot)
    ]
    model.requires_grad_(True)
    rng = np.random.default_rng([seed, 37])

    def loss() -> torch.Tensor:
        latents.clear()
        batch = pictures[rng.integers(PICTURES, size=BATCH)]
        reconstruction = functional.mse_loss(model(batch)["recon_image"], batch)
        return reconstruction + sum(_commitment(quantizer, latent) for quantizer, latent in latents)

    train_steps(loss, steps, [torch.optim.Adam(model.parameters(), lr=LATENT_RATE)])
    for hook in hooks:
        hook.remove()
    model.requires_grad_(False)


def _commitment(quantizer: VectorQuantizer, latent: torch.Tensor) -> torch.Tensor:
    rows = latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1])
    with torch.no_grad():
        nearest = torch.cdist(rows, quantizer.embedding.weight).argmin(1)
    entries = quantizer.embedding.weight[nearest]
    return functional.mse_loss(entries, rows.detach()) + 0.25 * functional.mse_loss(rows, entries.detach())
