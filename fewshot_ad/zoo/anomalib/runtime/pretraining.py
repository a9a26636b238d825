"""What EfficientAD and DSR need trained beforehand, learned here from generated pictures instead of downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from anomalib.models import Dsr, EfficientAd
from anomalib.models.image.dsr.torch_model import DiscreteLatentModel, VectorQuantizer
from torch import nn
from torch.nn import functional

from fewshot_ad.encoder.pyramid import read_state_dict
from fewshot_ad.errors import WeightsError
from fewshot_ad.zoo.anomalib.textures import generated_pictures
from fewshot_ad.zoo.components.pdn import BORDER, load_teacher, targets
from fewshot_ad.zoo.components.tensors import Backbone, to_batch

PICTURES = 64
BATCH = 4


class OfflineEfficientAd(EfficientAd):
    """EfficientAD whose teacher has been given its weights."""

    def prepare_pretrained_model(self) -> None:
        """Nothing to fetch."""


class OfflineDsr(Dsr):
    """DSR whose discrete latent model has been given its weights."""

    def on_train_start(self) -> None:
        """Nothing to fetch."""


def load(network: nn.Module, weights: str) -> None:
    """Fill a network from a file of its state dict.

    Raises:
        WeightsError: The file is of another network.
    """
    state, wanted = read_state_dict(Path(weights)), network.state_dict()
    missing = [k for k, v in wanted.items() if k not in state or state[k].shape != v.shape]
    if missing:
        raise WeightsError(f"{weights} is of another network: it lacks {len(missing)} tensors, first {missing[0]}.")
    network.load_state_dict({k: state[k] for k in wanted})


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


def distil_teacher(teacher: nn.Module, steps: int, side: int, seed: int) -> None:
    """Teach EfficientAD's patch description network the features of the shipped resnet18.

    Args:
        teacher: (N, 3, H, W) in 0..1 -> (N, 384, H / 4 - 8, W / 4 - 8).
        steps: Of Adam, 4 pictures each.
        side: Of the pictures.
        seed: Of the pictures and their order.

    Source: Batzner et al. 2024, EfficientAD, algorithm 2, with another target: stages 2 and 3 of the shipped resnet18,
    128 + 256 channels, for the 384 of WideResNet-101, and generated pictures for ImageNet's.
    """
    target = Backbone("resnet18", (2, 3))
    pictures = to_batch(generated_pictures(PICTURES, side, seed), side)
    with torch.no_grad():
        # The network without padding looks at the middle: its first cell is the fifth of a grid of stride 4.
        aims = torch.cat([targets(target, pictures[i : i + 1]) for i in range(PICTURES)])
        aims = aims[..., BORDER:-BORDER, BORDER:-BORDER]
    aims = (aims - aims.mean((0, 2, 3), keepdim=True)) / aims.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=1e-4, weight_decay=1e-5)
    rng = np.random.default_rng([seed, 31])
    for _ in range(steps):
        chosen = rng.integers(PICTURES, size=BATCH)
        loss = functional.mse_loss(teacher(pictures[chosen]), aims[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    teacher.requires_grad_(False)


def pretrain_latent(model: DiscreteLatentModel, steps: int, side: int, seed: int) -> None:
    """Train DSR's discrete latent model to reconstruct generated pictures.

    Args:
        model: (N, 3, H, W) in 0..1 -> its outputs, `recon_image` among them.
        steps: Of Adam, 4 pictures each.
        side: Of the pictures.
        seed: Of the pictures and their order.

    Source: van den Oord et al. 2017, Neural Discrete Representation Learning, equation 3, with both commitment terms
    at their weights 1 and 0.25; Zavrtanik et al. 2022, DSR, section 3.1.
    """
    pictures = to_batch(generated_pictures(PICTURES, side, seed), side)
    seen: list[tuple[VectorQuantizer, torch.Tensor]] = []
    hooks = [
        m.register_forward_pre_hook(lambda module, inputs: seen.append((module, inputs[0])))
        for m in (model.vq_vae_top, model.vq_vae_bot)
    ]
    # anomalib never trains this model and overwrites activations that gradients need.
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    rng = np.random.default_rng([seed, 37])
    for _ in range(steps):
        seen.clear()
        batch = pictures[rng.integers(PICTURES, size=BATCH)]
        loss = functional.mse_loss(model(batch)["recon_image"], batch)
        loss = loss + sum(_commitment(quantizer, latent) for quantizer, latent in seen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for hook in hooks:
        hook.remove()
    model.requires_grad_(False)


def _commitment(quantizer: VectorQuantizer, latent: torch.Tensor) -> torch.Tensor:
    rows = latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1])
    with torch.no_grad():
        nearest = torch.cdist(rows, quantizer.embedding.weight).argmin(1)
    entries = quantizer.embedding.weight[nearest]
    return functional.mse_loss(entries, rows.detach()) + 0.25 * functional.mse_loss(rows, entries.detach())
