"""Options that several shell commands share, and what they mean to the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

if TYPE_CHECKING:
    from fewshot_ad.inspector import Inspector

# The package's own aliases (`EngineName`, `Metric`, ...) stand beside numpy, OpenCV and OpenVINO, and `--help` must not
# wait for those to load. A type checker compares these with them where they are passed on; a test, choice by choice.
Engine: TypeAlias = Literal["openvino", "onnxruntime", "torch"]
Precision: TypeAlias = Literal["f32", "bf16", "auto"]
PresetName: TypeAlias = Literal["fast", "balanced", "accurate"]
Device: TypeAlias = Literal["cpu", "cuda"]
Target: TypeAlias = Literal["onnx-single", "openvino", "onnx"]
Fusion: TypeAlias = Literal["concat", "separate"]
Metric: TypeAlias = Literal["l2", "cosine"]
ImageScore: TypeAlias = Literal["top_mean", "reweighted"]

ArtifactArgument = Annotated[Path, typer.Argument(help="The product's .fsad file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text, one object per line.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there from an earlier run.")]
EngineOption = Annotated[Engine | None, typer.Option(help="What runs the encoder. Default: openvino.")]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="The encoder of a product whose encoder does not ship: its card (.json), or a timm model. Default: the "
        "shipped one.",
    ),
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="Weights of a timm model: .safetensors, or a .pth state dict.")
]
DownloadOption = Annotated[
    bool, typer.Option("--allow-download", help="Let timm fetch a model's weights from the internet.")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Number of CPU threads. Default: all.")]
DeviceOption = Annotated[
    Device, typer.Option(help="cuda: an NVIDIA GPU, by ONNX Runtime or torch; the CPU stands in if there is none.")
]
TrainingDeviceOption = Annotated[
    Device | None, typer.Option("--device", help="Where to train. Default: a GPU if there is one.")
]


def whole_number(text: str, option: str) -> int:
    """The value of an option as a number.

    Args:
        text: What the user typed.
        option: Name of the option, for the message.

    Raises:
        typer.BadParameter: The text is no whole number.
    """
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected a whole number, got {text!r}", param_hint=option) from None


def load_product(
    artifact: Path,
    *,
    encoder: str | None = None,
    engine: Engine | None = None,
    weights: Path | None = None,
    allow_download: bool = False,
    threads: int | None = None,
    device: Device = "cpu",
) -> Inspector:
    """Load a product with the options of the command line; see `Inspector.load`."""
    from fewshot_ad.inspector import Inspector

    return Inspector.load(
        artifact,
        encoder=encoder,
        engine=engine,
        weights=weights,
        allow_download=allow_download,
        threads=threads,
        device=device,
    )
