"""Shared by the baselines: images to tensors and maps back, backbones with weights from disk, seeding."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from torch import nn

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder.pyramid import lite0_weights_file
from fewshot_ad.encoder.state_dict import read_state_dict
from fewshot_ad.encoder.weights import shipped_encoders, verified_tensors
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.method import FROM_TIMM, Predictions

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_batch(images: Sequence[Uint8Array], side: int) -> torch.Tensor:
    """Images (H, W, 3) uint8 RGB of any sizes -> (N, 3, side, side) float32 in 0..1; the aspect ratio changes."""
    squares = []
    for image in images:
        interpolation = cv2.INTER_AREA if min(image.shape[:2]) > side else cv2.INTER_LINEAR
        squares.append(cv2.resize(image, (side, side), interpolation=interpolation))
    return unit_tensor(np.stack(squares))


def unit_tensor(images: Uint8Array) -> torch.Tensor:
    """Images (N, H, W, 3) uint8 RGB -> (N, 3, H, W) float32 in 0..1."""
    return torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255


def resized(normal: Sequence[Uint8Array], side: int) -> torch.Tensor:
    """A training set of images (H, W, 3) uint8 RGB, read item by item -> (N, 3, side, side) uint8.

    Raises:
        ZooError: There are no images.
    """
    require_images(normal)
    return torch.cat([(to_batch([normal[i]], side) * 255).round().to(torch.uint8) for i in range(len(normal))])


def require_images(normal: Sequence[Uint8Array]) -> None:
    """Refuse an empty support set.

    Raises:
        ZooError: There are no images.
    """
    if len(normal) == 0:
        raise ZooError("expected at least one image of a good part, got none.")


def standardize(
    batch: torch.Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> torch.Tensor:
    """(N, 3, H, W) in 0..1, minus each channel's mean and divided by its standard deviation (ImageNet's by default)."""
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    return (batch - shift) / scale


def to_map(heat: torch.Tensor | Float32Array, image: Uint8Array, sigma: float = 0.0) -> Float32Array:
    """A map (h, w) at any scale -> (H, W) float32 in the image's size.

    Args:
        heat: The map.
        image: (H, W, 3) uint8.
        sigma: Standard deviation of the Gaussian that smooths the map before it is resized, in pixels of `heat`.
    """
    if isinstance(heat, torch.Tensor):
        heat = heat.detach().float().cpu().numpy()
    heat = np.ascontiguousarray(heat, np.float32)
    if sigma > 0:
        heat = cv2.GaussianBlur(heat, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    return cv2.resize(heat, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def one_by_one(
    images: Sequence[Uint8Array],
    judge: Callable[[Uint8Array], tuple[float, torch.Tensor | Float32Array | None]],
    sigma: float = 0.0,
) -> Predictions:
    """Predictions from one image after the other.

    Args:
        images: (H, W, 3) uint8 RGB each.
        judge: Takes an image; returns its score and its map (h, w) at any scale, or None in place of the map.
        sigma: As for `to_map`.
    """
    scores, maps = [], []
    with torch.inference_mode():
        for image in images:
            score, heat = judge(image)
            scores.append(score)
            if heat is not None:
                maps.append(to_map(heat, image, sigma))
    return Predictions(np.asarray(scores, np.float32), tuple(maps) if maps or not scores else None)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[torch.Generator]:
    """Seed torch's global random numbers within the block and restore their state afterwards.

    Yields:
        A generator of its own with the same seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def tensor_bytes(*modules: nn.Module | torch.Tensor) -> int:
    """Bytes of modules' parameters and buffers, and of tensors."""
    total = 0
    for module in modules:
        tensors = [module] if isinstance(module, torch.Tensor) else [*module.parameters(), *module.buffers()]
        total += sum(t.numel() * t.element_size() for t in tensors)
    return total


def missing_tensors(network: nn.Module, state: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of a network's tensors that a state dict lacks or holds in another shape."""
    return [key for key, v in network.state_dict().items() if key not in state or state[key].shape != v.shape]


def fetched(model: str) -> dict[str, torch.Tensor]:
    """The tensors of a timm model, from the internet or from where timm keeps what it fetched before.

    Raises:
        WeightsError: They cannot be fetched.
    """
    try:
        return dict(timm.create_model(model, pretrained=True).state_dict())
    except Exception as error:
        raise WeightsError(
            f"{model}: timm could not fetch the weights ({type(error).__name__}). Connect to the internet, or give "
            "weights=FILE."
        ) from error


def _flattened(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict under the names that timm gives to the layers of a sequence when it takes stages out of it.

    Of VGG, `features.0.weight` becomes `features_0.weight`.
    """
    return {re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", key): tensor for key, tensor in state.items()}


# Backbones that come distilled, and the shipped encoder whose tensors hold them.
DISTILLED = {"resnet18": "resnet18_parts", "convnext_atto": "convnext_atto_parts"}


class Backbone(nn.Module):
    """A frozen network whose output is the feature maps of some stages.

    Args:
        name: `resnet18` or `convnext_atto`, distilled, or `lite0`, EfficientNet-Lite0 with ImageNet's weights: these
            ship with the package or its requirements. Any other timm model needs `weights`.
        stages: Indices into timm's `feature_info`; of a ResNet, 1, 2 and 3 are layer1 to layer3 at strides 4, 8, 16.
        weights: File of the weights of another timm model (safetensors, or a state dict), `timm` for those that timm
            fetches from the internet, or `random`.

    Attributes:
        channels: Number of channels, per stage.
        strides: Stride in pixels, per stage.
        mean: Mean that the network expects subtracted from its input, per channel; of values in 0..1.
        std: Standard deviation that it expects its input divided by, per channel.

    Raises:
        WeightsError: There are no weights, or they do not fit.
    """

    def __init__(self, name: str = "resnet18", stages: Sequence[int] = (1, 2, 3), weights: str | None = None) -> None:
        super().__init__()
        model = {"lite0": "tf_efficientnet_lite0"}.get(name, name)
        try:
            # timm draws random weights first; unless they are asked for, the caller's random numbers stay as they are.
            with torch.random.fork_rng(devices=[], enabled=weights != "random"):
                self.network = timm.create_model(model, features_only=True, pretrained=False, out_indices=tuple(stages))
        except IndexError as error:
            raise ZooError(f"expected stages that {name} has, counted from 0, got {list(stages)}.") from error
        except (RuntimeError, ValueError, AttributeError) as error:
            raise WeightsError(f"expected resnet18, lite0 or a timm model, got {name!r} ({error}).") from error
        self.channels: tuple[int, ...] = tuple(self.network.feature_info.channels())
        self.strides: tuple[int, ...] = tuple(self.network.feature_info.reduction())
        self.mean: tuple[float, ...] = tuple(self.network.pretrained_cfg["mean"])
        self.std: tuple[float, ...] = tuple(self.network.pretrained_cfg["std"])
        if weights != "random":
            self._load(name, model, weights)
        self.requires_grad_(False).eval()

    def _load(self, name: str, model: str, weights: str | None) -> None:
        if weights == FROM_TIMM:
            state = fetched(model)
        elif weights is not None:
            state = read_state_dict(Path(weights))
        elif name in DISTILLED:
            tensors = read_state_dict(verified_tensors(shipped_encoders()[DISTILLED[name]]))
            state = {k.removeprefix("pyramid.backbone."): v for k, v in tensors.items()}
        elif name == "lite0":
            classifier = timm.create_model(model, pretrained=False).state_dict()
            state = dict(zip(classifier, read_state_dict(lite0_weights_file()).values(), strict=True))
        else:
            raise WeightsError(
                f"{name}: no weights are at hand. Give weights=FILE (safetensors, or a .pth state dict of this timm "
                "model), or take resnet18, convnext_atto or lite0, which come with theirs."
            )
        state = {**_flattened(state), **state}
        missing = missing_tensors(self.network, state)
        if missing:
            raise WeightsError(f"{name}: the weights lack {len(missing)} tensors of these stages, first {missing[0]}.")
        self.network.load_state_dict({key: state[key] for key in self.network.state_dict()})

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: the batch statistics of a frozen network must not change."""
        return super().train(False)

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) in 0..1 -> one (N, C, H / stride, W / stride) per stage."""
        return list(self.network(standardize(batch, self.mean, self.std)))
