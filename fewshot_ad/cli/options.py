"""Options that several shell commands share, and what they mean to the package."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from fewshot_ad.errors import ArgumentError

if TYPE_CHECKING:
    from fewshot_ad.images import RegionSpec
    from fewshot_ad.inspector import Inspector
    from fewshot_ad.zoo.components.curves import Curves
    from fewshot_ad.zoo.fitted import Baseline

# The package's own aliases (`EngineName`, `Metric`, ...) stand beside numpy, OpenCV and OpenVINO, and `--help` must not
# wait for those to load. A type checker compares these with them where they are passed on; a test, choice by choice.
Engine: TypeAlias = Literal["openvino", "onnxruntime", "torch"]
Precision: TypeAlias = Literal["f32", "bf16", "auto"]
PresetName: TypeAlias = Literal["fast", "balanced", "accurate"]
Device: TypeAlias = Literal["cpu", "cuda"]
Target: TypeAlias = Literal["onnx-single", "openvino", "onnx"]
Fusion: TypeAlias = Literal["concat", "separate"]
Metric: TypeAlias = Literal["l2", "cosine"]
MonitorName: TypeAlias = Literal["tensorboard", "csv", "wandb", "mlflow", "comet", "none"]
ImageScore: TypeAlias = Literal["top_mean", "reweighted"]
ForegroundChoice: TypeAlias = Literal["off", "auto", "part"]
PartsChoice: TypeAlias = Literal["off", "auto"]
LightingChoice: TypeAlias = Literal["off", "auto", "normalized", "log_chromaticity"]

ArtifactArgument = Annotated[Path, typer.Argument(help="The product's .fsad file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text, one object per line.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there from an earlier run.")]
KeepOutliersOption = Annotated[
    bool, typer.Option("--keep-outliers", help="Enroll also from images that are unlike the others; they are named.")
]
RegisterOption = Annotated[
    bool,
    typer.Option(
        "--register",
        help="Bring every image into one pose first, for parts that lie at any angle. Corners that are turned out of "
        "the image are not inspected: leave a margin around the part.",
    ),
]
RoiOption = Annotated[
    list[str] | None,
    typer.Option(
        "--roi",
        help="Region of interest: only there is looked at. A box X,Y,WIDTH,HEIGHT, a polygon 'X,Y X,Y X,Y' in pixels, "
        "or a mask image, white where it counts. May be repeated.",
    ),
]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option("--ignore", help="What is not looked at, in the same forms, cut out of that. May be repeated."),
]
TakeOutliersOption = Annotated[
    bool,
    typer.Option("--force", help="Take images, too, that are unlike those of the product, or like a known defect."),
]
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
MonitorOption = Annotated[
    MonitorName | None,
    typer.Option(
        help="What draws training curves, by its own package; nothing is sent anywhere. Default: tensorboard, where "
        "installed; `none` draws nothing."
    ),
]
CurvesOption = Annotated[
    Path | None, typer.Option(help="Folder for the training curves. Default: `curves` beside the output.")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, max=1024, help="Number of CPU threads. Default: all.")]
DeviceOption = Annotated[
    Device, typer.Option(help="cuda: an NVIDIA GPU, by ONNX Runtime or torch; the CPU stands in if there is none.")
]
TrainingDeviceOption = Annotated[
    Device | None, typer.Option("--device", help="Where to train. Default: a GPU if there is one.")
]

MapsOption = Annotated[
    Path | None,
    typer.Option(help="Write the anomaly map of each image into this folder: TIFF, float32, the image's size."),
]
ZooDeviceOption = Annotated[
    str | None, typer.Option("--device", help="Where baselines compute: cpu, cuda or cuda:N. Default: cpu.")
]
ZooPrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="f32, or bf16 for mixed precision. Default: f32.")
]


def whole_numbers(text: str | None, option: str) -> list[int] | None:
    """The value of an option as numbers, separated by commas; None stays None.

    Args:
        text: What the user typed.
        option: Name of the option, for the message.

    Raises:
        typer.BadParameter: One of them is no whole number.
    """
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        message = f"expected whole numbers separated by commas, such as 2,3, got {text!r}"
        raise typer.BadParameter(message, param_hint=option) from None


def working_scales(text: str | None, option: str) -> list[int] | Literal["auto"] | None:
    """The value of an option as numbers of pixels or `auto`; None stays None.

    Args:
        text: What the user typed.
        option: Name of the option, for the message.

    Raises:
        typer.BadParameter: It is neither.
    """
    if text is None:
        return None
    try:
        return "auto" if text == "auto" else [int(part) for part in text.split(",")]
    except ValueError:
        message = f"expected auto or whole numbers of pixels, such as 384 or 256,512, got {text!r}"
        raise typer.BadParameter(message, param_hint=option) from None


def region(texts: Sequence[str] | None, option: str) -> RegionSpec | None:
    """The values of an option as a region of interest; None where it was left out.

    Args:
        texts: What the user typed: boxes and polygons, or a single mask image.
        option: Name of the option, for the message.

    Raises:
        typer.BadParameter: One is none, or a mask is not alone.
    """
    if not texts:
        return None
    shapes: list[Any] = []
    for text in texts:
        try:
            points = [[float(number) for number in point.split(",")] for point in text.split()]
        except ValueError:
            if len(texts) == 1:
                return Path(text)
            message = f"expected boxes and polygons, or one mask image alone, got {text!r} among {len(texts)}"
            raise typer.BadParameter(message, param_hint=option) from None
        is_box, is_polygon = len(points) == 1 and len(points[0]) == 4, len(points) > 2 and {*map(len, points)} == {2}
        if not is_box and not is_polygon:
            message = f"expected X,Y,WIDTH,HEIGHT, or a polygon 'X,Y X,Y X,Y', or a mask image, got {text!r}"
            raise typer.BadParameter(message, param_hint=option)
        shapes.append(points[0] if is_box else points)
    return shapes


def height_and_width(text: str, option: str) -> tuple[int, int]:
    """The value of an option as WIDTHxHEIGHT.

    Args:
        text: What the user typed.
        option: Name of the option, for the message.

    Returns:
        Height and width in pixels.

    Raises:
        typer.BadParameter: It is written in another way, or is no size that an image may have.
    """
    from fewshot_ad.errors import ImageError
    from fewshot_ad.images import check_size

    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower(), re.ASCII)
    if match is None:
        message = f"expected WIDTHxHEIGHT in pixels, such as 640x480, got {text!r}"
        raise typer.BadParameter(message, param_hint=option)
    height, width = int(match[2]), int(match[1])
    try:
        check_size(height, width)
    except ImageError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    return height, width


def is_product(name: str | Path) -> bool:
    """Whether a file looks like a product, by its suffix."""
    # Unlike those of `Path`, the functions of `os.path` take what may not be looked at for nothing.
    return Path(name).suffix.lower() == ".fsad" and not os.path.isdir(name)


def is_fitted(name: str | Path) -> bool:
    """Whether a folder looks like a fitted baseline, by the name of its description."""
    return os.path.isfile(os.path.join(name, "baseline.json"))


def load_fitted(folder: Path, given: Mapping[str, object], device: Device) -> Baseline:
    """A fitted baseline, with none of the options that are of products alone.

    Args:
        folder: Of it.
        given: Options of products, by name; None and False are not given.
        device: Where it computes.

    Raises:
        ArgumentError: There is one of them.
        ZooError: It cannot be read.
    """
    from fewshot_ad.zoo.fitted import Baseline

    for name, value in given.items():
        if value not in (None, False):
            option = name.replace("_", "-")
            raise ArgumentError(f"--{option}: expected a product with it, got the baseline in {folder}. Leave it out.")
    return Baseline.load(folder, device=device)


def load_judge(
    command: str, artifact: Path, others: Sequence[str] = (), *, device: Device, given: Mapping[str, Any]
) -> Inspector | Baseline:
    """What an argument names: a product, or a fitted baseline.

    Args:
        command: The command's name.
        artifact: What was given.
        others: What was given after it.
        device: Where it computes.
        given: Further options of `load_product`, by name.

    Raises:
        ArgumentError: It is neither, or an option is not for it.
        FewshotADError: It cannot be read.
    """
    if is_fitted(artifact):
        return load_fitted(artifact, given, device)
    refuse_misplaced(command, artifact, others)
    return load_product(artifact, device=device, **given)


def files_of(artifact: Path) -> list[Path]:
    """The files of a product or of a fitted baseline, which no output may replace."""
    return list(artifact.iterdir()) if artifact.is_dir() else [artifact]


def training_curves(
    monitor: MonitorName | None, folder: Path | None, output: Path, *, by_default: bool = True
) -> Curves | None:
    """Where training curves go; None = nowhere.

    Args:
        monitor: What `--monitor` says.
        folder: What `--curves` says.
        output: The command's output, beside which they go by default.
        by_default: Whether TensorBoard draws them, where it is installed, without being asked to.

    Raises:
        ArgumentError: A folder for nothing, or one that is a file.
        ZooError: The monitor's package is missing.
    """
    from fewshot_ad.zoo.components.curves import Curves, is_installed

    asked = monitor is not None or folder is not None
    if monitor == "none" or not (asked or (by_default and is_installed("tensorboard"))):
        if folder is not None:
            raise ArgumentError("--curves: expected a monitor with it, got --monitor none. Leave one of them out.")
        return None
    monitor = monitor or "tensorboard"
    folder = folder if folder is not None else output.resolve().parent / "curves"
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"--curves: expected a folder, got the file {folder}. Name another one.")
    return Curves(monitor, folder)


def refuse_misplaced(command: str, artifact: Path, others: Sequence[str] = ()) -> None:
    """Refuse arguments that stand in each other's place, or a folder in the place of a product.

    Args:
        command: The command's name, for the command line that is proposed.
        artifact: What was given as the product.
        others: What was given after it.

    Raises:
        ArgumentError: The product is not where it belongs.
    """
    products = [other for other in others if is_product(other)]
    if is_product(artifact):
        if products and len(products) == len(others):
            raise ArgumentError(
                f"expected one product, then what belongs to it, got further products: {', '.join(products)}. Run "
                f"`fewshot-ad {command}` once for each product."
            )
        return
    if products:
        rest = [str(artifact), *(other for other in others if other != products[0])]
        raise ArgumentError(
            f"expected the product's .fsad file first, got {artifact} first and {products[0]} after it: they look "
            f"swapped. Try: {shlex.join(['fewshot-ad', command, products[0], *rest])}"
        )
    if is_fitted(artifact):
        raise ArgumentError(
            f"expected the product's .fsad file, got the fitted baseline in {artifact}. `fewshot-ad predict`, "
            "`report`, `check`, `calibrate` and `serve` take it."
        )
    if os.path.isdir(artifact):
        raise ArgumentError(
            f"expected the product's .fsad file, got the folder {artifact}. Name the file that `fewshot-ad enroll` "
            "wrote."
        )


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


@contextmanager
def locked(artifact: Path) -> Iterator[None]:
    """Keep others from changing a product meanwhile.

    Raises:
        ArtifactError: It cannot be locked.
    """
    from fewshot_ad.errors import ArtifactError
    from fewshot_ad.storage import lock, write_failure

    with ExitStack() as stack:
        try:
            stack.enter_context(lock(artifact))
        except OSError as error:
            raise ArtifactError(write_failure(artifact, error)) from error
        yield
