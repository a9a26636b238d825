"""Options that several shell commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fewshot_ad.inspector import Inspector


class EngineOption(str, Enum):
    """Engines by name."""

    openvino = "openvino"
    onnxruntime = "onnxruntime"
    torch = "torch"


class PrecisionOption(str, Enum):
    """Precisions by name."""

    f32 = "f32"
    bf16 = "bf16"
    auto = "auto"


class PresetOption(str, Enum):
    """Presets by name."""

    fast = "fast"
    balanced = "balanced"
    accurate = "accurate"


class DeviceOption(str, Enum):
    """Devices by name."""

    cpu = "cpu"
    cuda = "cuda"


class TargetOption(str, Enum):
    """Forms of an export by name."""

    onnx_single = "onnx-single"
    openvino = "openvino"
    onnx = "onnx"


class FusionOption(str, Enum):
    """Ways to join the stages."""

    concat = "concat"
    separate = "separate"


class MetricOption(str, Enum):
    """Distances by name."""

    l2 = "l2"
    cosine = "cosine"


class ImageScoreOption(str, Enum):
    """Image scores by name."""

    top_mean = "top_mean"
    reweighted = "reweighted"


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text, one object a line.")]
EngineChoice = Annotated[EngineOption | None, typer.Option(help="What runs the encoder. Default: openvino.")]
WeightsChoice = Annotated[
    Path | None, typer.Option(help="Weights of a timm model: .safetensors, or a .pth state dict.")
]
ThreadsChoice = Annotated[int | None, typer.Option(min=1, help="Number of CPU threads. Default: all.")]
DeviceChoice = Annotated[
    DeviceOption,
    typer.Option(help="cuda: an NVIDIA GPU, by ONNX Runtime or torch; the CPU stands in if there is none."),
]
DownloadChoice = Annotated[
    bool, typer.Option("--allow-download", help="Let timm fetch a model's weights from the internet.")
]


def whole_number(text: str, option: str) -> int:
    """An option's text as a number."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected a whole number, got {text!r}", param_hint=option) from None


def load_product(
    artifact: Path,
    engine: EngineOption | None,
    weights: Path | None,
    allow_download: bool,
    threads: int | None,
    device: DeviceOption = DeviceOption.cpu,
) -> Inspector:
    """A product with the options of the command line."""
    from fewshot_ad.inspector import Inspector

    return Inspector.load(
        artifact,
        engine=engine.value if engine else None,  # type: ignore[arg-type]
        weights=weights,
        allow_download=allow_download,
        threads=threads,
        device=device.value,  # type: ignore[arg-type]
    )
