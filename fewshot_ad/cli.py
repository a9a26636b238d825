"""The shell commands: thin, each calls one function of the package."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fewshot_ad.cli_training import commands as training_commands
from fewshot_ad.terminal import (
    EXIT_ANOMALY,
    EXIT_ERROR,
    EXIT_GOOD,
    overlay_names,
    print_json,
    progress_bar,
    report_failure,
    reported_errors,
    row,
    say,
    table,
    verdict,
    write_overlay,
)

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


def _print_version(wanted: bool) -> None:
    if wanted:
        from fewshot_ad import __version__

        print(f"fewshot-ad {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself; its help is the application's."""


@app.command()
def enroll(
    good: Annotated[list[str], typer.Argument(help="Good photographs: a folder, files, or a quoted glob.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The product's file, for example bracket.fsad.")],
    product: Annotated[str | None, typer.Option(help="Name of the product. Default: the output's name.")] = None,
    encoder: Annotated[
        str, typer.Option(help="A shipped encoder, or a timm model such as resnet18 (extra 'torch').")
    ] = "lite0_parts",
    preset: Annotated[
        PresetOption,
        typer.Option(help="Settings that go together: views, image size, budget and precision; each can be given."),
    ] = PresetOption.balanced,
    views: Annotated[
        str | None,
        typer.Option(
            help="Augmentations of the good photographs: auto, none, all, or names with optional strengths: "
            "grey, hflip, vflip, translate, rotate=90/180/270, brightness=0.8/1.2, contrast. Default: the preset's."
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            help="Working scale in pixels (64 to 2048), or auto. Larger finds smaller defects, slower. Default: the "
            "preset's."
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Size of the memory bank, in vectors a level. Default: the preset's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    metric: Annotated[MetricOption | None, typer.Option(help="Distance of patch embeddings.")] = None,
    image_score: Annotated[ImageScoreOption | None, typer.Option(help="How patch distances become a score.")] = None,
    top_fraction: Annotated[
        float | None, typer.Option(help="Share of the patches that top_mean averages. Default: 0.02.")
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Smoothing of the map, in pixels at a scale of 256. Default: 4.")
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(help="Stages of the backbone to use, for example 2,3. Default: the encoder's own."),
    ] = None,
    fusion: Annotated[FusionOption, typer.Option(help="Join the stages, or search each on its own.")] = (
        FusionOption.concat
    ),
    engine: EngineChoice = None,
    precision: Annotated[
        PrecisionOption | None,
        typer.Option(
            help="f32: the same scores on every processor; bf16: faster where the processor has it, refused elsewhere; "
            "auto: bf16 where it is faster and the scores stay the same. Default: the preset's."
        ),
    ] = None,
    weights: WeightsChoice = None,
    allow_download: DownloadChoice = False,
    threads: ThreadsChoice = None,
    device: DeviceChoice = DeviceOption.cpu,
    as_json: JsonOption = False,
) -> None:
    """Enroll a product from 2 to 8 good photographs; a few seconds, nothing is trained."""
    with reported_errors(as_json), progress_bar(quiet=as_json) as progress:
        from fewshot_ad.inspector import Inspector
        from fewshot_ad.scoring import ScoringConfig

        scoring = {
            "metric": metric.value if metric else None,
            "image_score": image_score.value if image_score else None,
            "top_fraction": top_fraction,
            "sigma": sigma,
        }
        chosen = {name: value for name, value in scoring.items() if value is not None}
        inspector = Inspector.from_support(
            good[0] if len(good) == 1 else good,
            product=product or output.stem,
            encoder=encoder,
            preset=preset.value,  # type: ignore[arg-type]
            views=views,
            image_size=image_size if image_size in (None, "auto") else _whole_number(image_size, "--image-size"),  # type: ignore[arg-type]
            budget=budget,
            seed=seed,
            progress=progress,
            scoring=ScoringConfig(**chosen),  # type: ignore[arg-type]
            engine=engine.value if engine else None,  # type: ignore[arg-type]
            precision=precision.value if precision else None,  # type: ignore[arg-type]
            stages=[_whole_number(s, "--stages") for s in stages.split(",")] if stages else None,
            fusion=fusion.value,  # type: ignore[arg-type]
            weights=weights,
            allow_download=allow_download,
            threads=threads,
            device=device.value,  # type: ignore[arg-type]
        )
        inspector.save(output)
    if as_json:
        print_json({"artefact": str(output), **inspector.info()})
        return
    for note in inspector.enrolment.notes:
        say(f"note: {note}")
    for reason in inspector.enrolment.reasons:
        say(reason)
    say(inspector.calibration.explain())
    say(f"enrolled {inspector.product} from {len(inspector.enrolment.support)} photograph(s) -> {output}")


@app.command()
def add(
    artefact: Annotated[Path, typer.Argument(help="The product's .fsad file; it is replaced once all is done.")],
    good: Annotated[list[str], typer.Argument(help="Further good photographs: a folder, files, or a quoted glob.")],
    weights: WeightsChoice = None,
    allow_download: DownloadChoice = False,
    threads: ThreadsChoice = None,
    as_json: JsonOption = False,
) -> None:
    """Take further good photographs into a product; its views, scale and other settings stay."""
    with reported_errors(as_json), progress_bar(quiet=as_json) as progress:
        from fewshot_ad.inspector import Inspector

        inspector = Inspector.load(artefact, weights=weights, allow_download=allow_download, threads=threads)
        notes = inspector.add(good[0] if len(good) == 1 else good, progress=progress)
        inspector.save(artefact)
    if as_json:
        print_json({"artefact": str(artefact), **inspector.info()})
        return
    for note in notes:
        say(f"note: {note}")
    say(inspector.calibration.explain())
    say(f"{inspector.product}: {len(inspector.enrolment.support)} photographs now -> {artefact}")


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
    device: DeviceChoice = DeviceOption.cpu,
    as_json: JsonOption = False,
) -> None:
    """Inspect photographs: a verdict line each, a summary, exit code 0 (all good), 1 (an anomaly) or 2 (an error)."""
    good = anomalous = 0
    failures: list[str] = []
    with reported_errors(as_json):
        from fewshot_ad.errors import ImageError
        from fewshot_ad.images import expand_sources
        from fewshot_ad.inspector import Inspector

        inspector = Inspector.load(
            artefact,
            engine=engine.value if engine else None,  # type: ignore[arg-type]
            weights=weights,
            allow_download=allow_download,
            threads=threads,
            device=device.value,  # type: ignore[arg-type]
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
        overlays = overlay_names(paths)
        for failure in failures:
            report_failure(failure, as_json)
        with table(csv_file) as write_row, progress_bar(quiet=as_json or len(paths) < 20) as progress:
            for i, result in enumerate(inspector.inspect_batch(paths, errors="return")):
                if progress is not None:
                    progress("inspect", i + 1, len(paths))
                if isinstance(result, ImageError):
                    failures.append(str(result))
                    report_failure(str(result), as_json, str(paths[i]))
                    write_row({"file": str(paths[i]), "verdict": "ERROR", "error": str(result)})
                    continue
                good += not result.is_anomalous
                anomalous += result.is_anomalous
                overlay = heatmaps / overlays[i] if heatmaps is not None else None
                if overlay is not None:
                    write_overlay(overlay, result)
                write_row(row(paths[i], result))
                if as_json:
                    extra = {"overlay": str(overlay)} if overlay else {}
                    print_json({"file": str(paths[i]), **result.as_dict(), **extra})
                else:
                    say(verdict(paths[i], result))
    if not as_json:
        summary = f"{good} good, {anomalous} anomalous, {len(failures)} not readable"
        say(summary + (f"; overlays in {heatmaps}" if heatmaps else ""))
    raise typer.Exit(EXIT_ERROR if failures else EXIT_ANOMALY if anomalous else EXIT_GOOD)


@app.command()
def info(
    artefact: Annotated[Path, typer.Argument(help="The product's .fsad file.")], as_json: JsonOption = False
) -> None:
    """Show what a product was enrolled from, with which settings, and where its threshold comes from."""
    with reported_errors(as_json):
        from fewshot_ad.artefact import describe, read_artefact

        record = describe(*read_artefact(artefact))
    if as_json:
        print_json(record)
        return
    import yaml

    print(yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=110), end="")


@app.command()
def export(
    artefact: Annotated[Path, typer.Argument(help="The product's .fsad file.")],
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    target: Annotated[
        TargetOption,
        typer.Option(
            help="onnx-single: one file for any ONNX Runtime, photograph in, score and map out; openvino: the same as "
            "OpenVINO IR; onnx: encoder and memory banks apart."
        ),
    ] = TargetOption.onnx_single,
    size: Annotated[
        str | None,
        typer.Option(help="WIDTHxHEIGHT of the photographs to come, in pixels. Default: the support set's."),
    ] = None,
    photographs: Annotated[
        str | None, typer.Option(help="Good photographs to prove it on, instead of those inside the product.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a product for other runtimes, with proof that it says the same there (extra 'onnx')."""
    with reported_errors(as_json):
        from fewshot_ad.export import export as write
        from fewshot_ad.images import expand_sources, read_image
        from fewshot_ad.inspector import Inspector

        inspector = Inspector.load(artefact)
        pictures = [read_image(source) for source in expand_sources(photographs)] if photographs else None
        photo_hw = None
        if size is not None:
            width, _, height = size.partition("x")
            photo_hw = (_whole_number(height, "--size"), _whole_number(width, "--size"))
        elif pictures:
            photo_hw = pictures[0].shape[:2]
        report = write(inspector, folder, target.value, photo_hw=photo_hw, photographs=pictures)  # type: ignore[arg-type]
        files = [*json.loads((folder / "manifest.json").read_text())["files"], "manifest.json"]
    if as_json:
        print_json({"folder": str(folder), "files": files, "parity": dataclasses.asdict(report)})
        return
    say(
        f"{report.photographs} photographs and views, {report.anomalous} of them anomalous: scores differ by at most "
        f"{report.score_difference:.4%} and maps by {report.map_difference:.4%} of their thresholds, no decision flips"
    )
    say(f"exported {inspector.product} -> {folder}: {', '.join(files)}")


@app.command()
def bench(
    artefact: Annotated[Path, typer.Argument(help="The product's .fsad file.")],
    minutes: Annotated[float, typer.Option(min=0, help="How long; 0 makes 200 inspections.")] = 0.0,
    photographs: Annotated[
        str | None, typer.Option(help="Photographs to inspect. Default: the support photographs inside the product.")
    ] = None,
    engine: EngineChoice = None,
    weights: WeightsChoice = None,
    allow_download: DownloadChoice = False,
    threads: ThreadsChoice = None,
    as_json: JsonOption = False,
) -> None:
    """Measure inspections on this machine: p50, p95, p99 in milliseconds, by stage, and minute by minute."""
    with reported_errors(as_json):
        from fewshot_ad.bench import bench as measure
        from fewshot_ad.bench import own_photographs
        from fewshot_ad.images import expand_sources, read_image
        from fewshot_ad.inspector import Inspector

        inspector = Inspector.load(
            artefact,
            engine=engine.value if engine else None,  # type: ignore[arg-type]
            weights=weights,
            allow_download=allow_download,
            threads=threads,
        )
        if photographs:
            pictures = [read_image(source) for source in expand_sources(photographs)]
        else:
            pictures = own_photographs(inspector)

        def window(figures: dict[str, float]) -> None:
            if not as_json:
                say(f"  a minute: p50 {figures['p50']} ms, p95 {figures['p95']}, p99 {figures['p99']}")

        report = measure(inspector, pictures, minutes * 60, window)
    if as_json:
        print_json(report)
        return
    height, width, _ = report["photograph"]
    say(f"{report['inspections']} inspections of {width} x {height} pixels, decoded, each with a full-size map:")
    say(f"p50 {report['p50']} ms, p95 {report['p95']}, p99 {report['p99']}, largest {report['max']}")
    say(f"{report['per_second']} a second; the first took {report['first']} ms (it compiles the network)")
    say("medians by stage: " + ", ".join(f"{stage} {ms}" for stage, ms in report["stages"].items()))


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check this installation: versions, engines, threads, weights, and a timing; writes nothing."""
    with reported_errors(as_json):
        from fewshot_ad.doctor import examine

        report = examine()
    if as_json:
        print_json(report)
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
    with reported_errors(as_json):
        from fewshot_ad.demo import run_demo

        lines, report = run_demo(output, data, shots, seed, progress_bar)
    if as_json:
        print_json(report)
    else:
        for line in lines:
            say(line)


app.add_typer(training_commands)


def main() -> None:
    """Entry point of the console script."""
    # A file name that the terminal cannot show must not stop a batch.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # The commands print an enrolment's notes themselves.
    logging.basicConfig(level=logging.DEBUG if os.environ.get("FEWSHOT_AD_DEBUG") else logging.CRITICAL)
    app()


def _whole_number(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected a whole number, got {text!r}", param_hint=option) from None
