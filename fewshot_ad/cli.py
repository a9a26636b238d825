"""The shell commands: thin, each calls one function of the package."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_ad.errors import FewshotADError

if TYPE_CHECKING:
    from fewshot_ad.inspection import Inspection
    from fewshot_ad.memory_bank import Progress

EXIT_GOOD, EXIT_ANOMALY, EXIT_ERROR = 0, 1, 2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help="""Visual inspection from a few good photographs, on a CPU, offline.

Photograph 2 to 8 good parts, then:

  fewshot-ad enroll good/ -o bracket.fsad

  fewshot-ad inspect bracket.fsad line/*.png --heatmaps heat/

Exit codes: 0 all good, 1 an anomaly was found, 2 an error.""",
)


class EngineOption(str, Enum):
    """Engines by name."""

    openvino = "openvino"
    onnxruntime = "onnxruntime"
    torch = "torch"


class PrecisionOption(str, Enum):
    """Precisions by name."""

    f32 = "f32"
    bf16 = "bf16"


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
DownloadChoice = Annotated[
    bool, typer.Option("--allow-download", help="Let timm fetch a model's weights from the internet.")
]


@app.command()
def enroll(
    good: Annotated[list[str], typer.Argument(help="Good photographs: a folder, files, or a quoted glob.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The product's file, for example bracket.fsad.")],
    product: Annotated[str | None, typer.Option(help="Name of the product. Default: the output's name.")] = None,
    encoder: Annotated[
        str, typer.Option(help="A shipped encoder, or a timm model such as resnet18 (extra 'torch').")
    ] = "efficientnet_lite0",
    views: Annotated[
        str,
        typer.Option(
            help="Augmentations of the good photographs: auto, none, all, or names with optional strengths: "
            "grey, hflip, vflip, translate, rotate=90/180/270, brightness=0.8/1.2, contrast."
        ),
    ] = "auto",
    image_size: Annotated[
        str,
        typer.Option(help="Working scale in pixels (64 to 2048), or auto. Larger finds smaller defects, slower."),
    ] = "auto",
    budget: Annotated[int, typer.Option(min=1, help="Size of the memory bank, in vectors.")] = 4000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    metric: Annotated[MetricOption | None, typer.Option(help="Distance of patch embeddings.")] = None,
    image_score: Annotated[ImageScoreOption | None, typer.Option(help="How patch distances become a score.")] = None,
    stages: Annotated[
        str | None,
        typer.Option(help="Stages of the backbone to use, for example 2,3. Default: the encoder's own."),
    ] = None,
    fusion: Annotated[FusionOption, typer.Option(help="Join the stages, or search each on its own.")] = (
        FusionOption.concat
    ),
    engine: EngineChoice = None,
    precision: Annotated[PrecisionOption, typer.Option(help="f32 scores alike on every processor.")] = (
        PrecisionOption.f32
    ),
    weights: WeightsChoice = None,
    allow_download: DownloadChoice = False,
    threads: ThreadsChoice = None,
    as_json: JsonOption = False,
) -> None:
    """Enroll a product from 2 to 8 good photographs; a few seconds, nothing is trained."""
    with _errors(as_json), _progress(quiet=as_json) as progress:
        from fewshot_ad.inspector import Inspector
        from fewshot_ad.scoring import ScoringConfig

        chosen = {name: option.value for name, option in (("metric", metric), ("image_score", image_score)) if option}
        inspector = Inspector.from_support(
            good[0] if len(good) == 1 else good,
            product=product or output.stem,
            encoder=encoder,
            views=views,
            image_size="auto" if image_size == "auto" else _whole_number(image_size, "--image-size"),
            budget=budget,
            seed=seed,
            progress=progress,
            scoring=ScoringConfig(**chosen),  # type: ignore[arg-type]
            engine=engine.value if engine else None,  # type: ignore[arg-type]
            precision=precision.value,  # type: ignore[arg-type]
            stages=[_whole_number(s, "--stages") for s in stages.split(",")] if stages else None,
            fusion=fusion.value,  # type: ignore[arg-type]
            weights=weights,
            allow_download=allow_download,
            threads=threads,
        )
        inspector.save(output)
    if as_json:
        _print_json({"artefact": str(output), **inspector.info()})
        return
    out = _console()
    for note in inspector.enrolment.notes:
        out.print(f"note: {note}", markup=False, soft_wrap=True)
    for reason in inspector.enrolment.reasons:
        out.print(reason, markup=False, soft_wrap=True)
    out.print(inspector.calibration.explain(), markup=False, soft_wrap=True)
    out.print(f"enrolled {inspector.product} from {len(inspector.enrolment.support)} photograph(s) -> {output}")


@app.command()
def inspect(
    artefact: Annotated[Path, typer.Argument(help="The product's .fsad file.")],
    images: Annotated[list[str], typer.Argument(help="Photographs: folders, files, or quoted globs.")],
    heatmaps: Annotated[
        Path | None, typer.Option(help="Write an overlay of each photograph into this folder, as PNG.")
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a table of the verdicts.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Use this threshold instead of the enrolled one.", show_default=False)
    ] = None,
    engine: EngineChoice = None,
    weights: WeightsChoice = None,
    allow_download: DownloadChoice = False,
    threads: ThreadsChoice = None,
    as_json: JsonOption = False,
) -> None:
    """Inspect photographs: a verdict line each, a summary, exit code 0 (all good), 1 (an anomaly) or 2 (an error)."""
    good = anomalous = 0
    failures: list[str] = []
    with _errors(as_json):
        from fewshot_ad.errors import ImageError
        from fewshot_ad.images import expand_sources
        from fewshot_ad.inspector import Inspector

        inspector = Inspector.load(
            artefact,
            engine=engine.value if engine else None,  # type: ignore[arg-type]
            weights=weights,
            allow_download=allow_download,
            threads=threads,
        )
        if threshold is not None:
            inspector.threshold = threshold
        sources = []
        for image in images:
            try:
                sources.extend(expand_sources(image))
            except ImageError as error:
                failures.append(str(error))
        paths = [Path(str(source)) for source in sources]
        overlay_names = _distinct_names(paths)
        for failure in failures:
            _report_failure(failure, as_json)
        with _table(csv_file) as write_row, _progress(quiet=as_json or len(paths) < 20) as progress:
            for i, result in enumerate(inspector.inspect_batch(iter(paths), errors="return")):
                if progress is not None:
                    progress("inspect", i + 1, len(paths))
                if isinstance(result, ImageError):
                    failures.append(str(result))
                    _report_failure(str(result), as_json)
                    write_row({"file": str(paths[i]), "verdict": "ERROR", "error": str(result)})
                    continue
                good += not result.is_anomalous
                anomalous += result.is_anomalous
                overlay = _write_overlay(heatmaps, overlay_names[i], result) if heatmaps is not None else None
                write_row(_row(paths[i], result))
                if as_json:
                    extra = {"overlay": str(overlay)} if overlay else {}
                    _print_json({"file": str(paths[i]), **result.as_dict(), **extra})
                else:
                    _console().print(_verdict(paths[i], result), markup=False, highlight=False, soft_wrap=True)
    if not as_json:
        summary = f"{good} good, {anomalous} anomalous, {len(failures)} not readable"
        _console().print(summary + (f"; overlays in {heatmaps}" if heatmaps else ""), markup=False, soft_wrap=True)
    raise typer.Exit(EXIT_ERROR if failures else EXIT_ANOMALY if anomalous else EXIT_GOOD)


@app.command()
def info(
    artefact: Annotated[Path, typer.Argument(help="The product's .fsad file.")], as_json: JsonOption = False
) -> None:
    """Show what a product was enrolled from, with which settings, and where its threshold comes from."""
    with _errors(as_json):
        from fewshot_ad.artefact import read_artefact
        from fewshot_ad.inspector import Inspector

        read_artefact(artefact)
        record = Inspector.load(artefact).info()
    if as_json:
        _print_json(record)
        return
    import yaml

    print(yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=110), end="")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check this installation: versions, engines, threads, weights, and a timing; writes nothing."""
    with _errors(as_json):
        from fewshot_ad.doctor import examine

        report = examine()
    if as_json:
        _print_json(report)
    else:
        import yaml

        print(yaml.safe_dump(report, sort_keys=False, width=110), end="")
    raise typer.Exit(EXIT_GOOD if report["ok"] else EXIT_ERROR)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the overlays go.")] = Path("demo_output"),
    data: Annotated[
        Path | None,
        typer.Option(help="A product in MVTec layout (train/good, test/good, test/<defect>) to use instead."),
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="Good photographs to enroll from.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Enroll and inspect real photographs end to end; they ship with scikit-image (extra 'demo')."""
    with _errors(as_json):
        from fewshot_ad.demo import run_demo

        lines, report = run_demo(output, data, shots, seed, _progress)
    if as_json:
        _print_json(report)
    else:
        for line in lines:
            _console().print(line, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the console script."""
    app()


def _whole_number(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected a whole number, got {text!r}", param_hint=option) from None


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Turn the package's errors into one message and exit code 2."""
    try:
        yield
    except (FewshotADError, ValueError) as error:
        _report_failure(str(error), as_json)
        raise typer.Exit(EXIT_ERROR) from None
    except KeyboardInterrupt:
        _report_failure("interrupted", as_json)
        raise typer.Exit(EXIT_ERROR) from None


def _report_failure(message: str, as_json: bool) -> None:
    if as_json:
        _print_json({"error": message})
    else:
        print(f"error: {message}", file=sys.stderr)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr)


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress | None]:
    """A progress bar on stderr, shown only on a terminal and erased at the end."""
    console = _console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:>10}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield update


COLUMNS = ("file", "verdict", "score", "threshold", "severity", "x", "y", "width", "height", "ms", "error")


def _row(path: Path, result: Inspection) -> dict[str, Any]:
    row: dict[str, Any] = {
        "file": str(path),
        "verdict": "ANOMALOUS" if result.is_anomalous else "GOOD",
        "score": f"{result.score:.6g}",
        "threshold": f"{result.threshold:.6g}",
        "severity": f"{result.severity:.4f}",
        "ms": f"{result.timings_ms['total']:.1f}",
    }
    if result.regions:
        row |= dict(zip(("x", "y", "width", "height"), result.regions[0].box, strict=True))
    return row


def _verdict(path: Path, result: Inspection) -> str:
    verdict = "ANOMALOUS" if result.is_anomalous else "good     "
    where = ""
    if result.regions:
        x, y, width, height = result.regions[0].box
        where = f"  at x {x}..{x + width - 1}, y {y}..{y + height - 1}"
        where += f" and {len(result.regions) - 1} more" if len(result.regions) > 1 else ""
    return f"{verdict}  severity {result.severity:5.2f}  {path}{where}  ({result.timings_ms['total']:.0f} ms)"


@contextmanager
def _table(path: Path | None) -> Iterator[Any]:
    if path is None:
        yield lambda row: None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            yield writer.writerow
    except OSError as error:
        raise FewshotADError(
            f"{path}: the table cannot be written ({error.strerror}). Choose another --csv."
        ) from error


def _distinct_names(paths: list[Path]) -> list[str]:
    """A file name an overlay: the stem, led by parent folders where two photographs share one."""
    names = [path.stem for path in paths]
    depth = 1
    while len(set(names)) < len(set(paths)) and depth < 32:
        depth += 1
        names = ["_".join([*path.parts[-depth:-1], path.stem]).replace("/", "") for path in paths]
        if all(depth > len(path.parts) for path in paths):
            names = [f"{i:05d}_{path.stem}" for i, path in enumerate(paths)]
    return names


def _write_overlay(folder: Path, name: str, result: Inspection) -> Path:
    import cv2

    path = folder / f"{name}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _, data = cv2.imencode(".png", cv2.cvtColor(result.overlay(), cv2.COLOR_RGB2BGR))
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise FewshotADError(
            f"{path}: the overlay cannot be written ({error.strerror}). Free some space or choose another --heatmaps."
        ) from error
    return path
