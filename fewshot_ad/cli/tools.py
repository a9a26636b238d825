"""The shell commands around a product: export, bench, doctor, demo."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot_ad.cli.options import (
    ArtifactArgument,
    DownloadOption,
    EncoderOption,
    EngineOption,
    ForceOption,
    JsonOption,
    Target,
    ThreadsOption,
    WeightsOption,
    height_and_width,
    load_product,
    refuse_misplaced,
)
from fewshot_ad.cli.terminal import EXIT_ERROR, EXIT_GOOD, print_json, progress_bar, reported_errors, say

commands = typer.Typer()


@commands.command()
def export(
    artifact: ArtifactArgument,
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    target: Annotated[
        Target,
        typer.Option(
            help="onnx-single: one file for any ONNX Runtime, image in, score and map out; openvino: the same as "
            "OpenVINO IR; onnx: encoder and memory banks apart."
        ),
    ] = "onnx-single",
    size: Annotated[
        str | None,
        typer.Option(help="WIDTHxHEIGHT of the images to come, in pixels. Default: the support set's."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Good images to prove it on, instead of those inside the product.")
    ] = None,
    encoder: EncoderOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a product for other runtimes, with proof that it says the same there (extra 'onnx')."""
    with reported_errors(as_json):
        from fewshot_ad.export import check_export_folder
        from fewshot_ad.export import export as write
        from fewshot_ad.images import list_images, read_image

        refuse_misplaced("export", artifact, [str(folder)])
        paths = list_images(images) if images else []
        cards = [Path(encoder)] if encoder is not None and os.path.isfile(encoder) else []
        check_export_folder(folder, inputs=[artifact, *paths, *cards], force=force)
        inspector = load_product(artifact, encoder=encoder)
        proof = [read_image(path) for path in paths] or None
        image_hw = proof[0].shape[:2] if proof else None
        if size is not None:
            image_hw = height_and_width(size, "--size")
        report = write(inspector, folder, target, image_hw=image_hw, images=proof, force=force)
        files = [*json.loads((folder / "manifest.json").read_text())["files"], "manifest.json"]
    if as_json:
        print_json("export", {"folder": str(folder), "files": files, "parity": dataclasses.asdict(report)})
        return
    say(
        f"{report.images} images and views, {report.anomalous} of them anomalous: scores differ by at most "
        f"{report.score_difference:.4%} and maps by {report.map_difference:.4%} of their thresholds, no decision flips"
    )
    say(f"exported {inspector.product} -> {folder}: {', '.join(files)}")


@commands.command()
def bench(
    artifact: ArtifactArgument,
    minutes: Annotated[float, typer.Option(min=0, help="How long to measure; 0 makes 200 inspections.")] = 0.0,
    images: Annotated[
        str | None, typer.Option(help="Images to inspect. Default: the support images inside the product.")
    ] = None,
    encoder: EncoderOption = None,
    engine: EngineOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure inspections on this machine: p50, p95, p99 in milliseconds, by stage, and minute by minute."""
    with reported_errors(as_json):
        from fewshot_ad.images import list_images, read_image
        from fewshot_ad.latency import bench as measure
        from fewshot_ad.latency import own_images

        refuse_misplaced("bench", artifact)
        inspector = load_product(
            artifact, encoder=encoder, engine=engine, weights=weights, allow_download=allow_download, threads=threads
        )

        def show_minute(figures: dict[str, float]) -> None:
            if not as_json:
                say(f"  last minute: p50 {figures['p50']} ms, p95 {figures['p95']}, p99 {figures['p99']}")

        pixels = [read_image(path) for path in list_images(images)] if images is not None else own_images(inspector)
        report = measure(inspector, pixels, minutes * 60, show_minute)
    if as_json:
        print_json("bench", report)
        return
    height, width, _ = report["photograph"]
    say(f"{report['inspections']} inspections of {width} x {height} pixels, decoded, each with a full-size map:")
    say(f"p50 {report['p50']} ms, p95 {report['p95']}, p99 {report['p99']}, largest {report['max']}")
    say(f"{report['per_second']} per second; the first took {report['first']} ms (it compiles the network)")
    say("medians by stage: " + ", ".join(f"{stage} {ms}" for stage, ms in report["stages"].items()))


@commands.command()
def doctor(
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Check instead that nothing touches the network, the home folder or a process."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check this installation without writing anything: versions, engines, threads, weights, and a timing."""
    with reported_errors(as_json):
        report, text = _examine_offline() if offline else _examine()
    if as_json:
        print_json("doctor-offline" if offline else "doctor", report)
    else:
        say(text)
    raise typer.Exit(EXIT_GOOD if report["ok"] else EXIT_ERROR)


def _examine() -> tuple[dict[str, Any], str]:
    from fewshot_ad.doctor import examine

    report = examine()
    try:
        import yaml
    except ImportError:  # which the report names
        return report, json.dumps(report, indent=2, allow_nan=False)
    return report, yaml.safe_dump(report, sort_keys=False, width=110).rstrip()


def _examine_offline() -> tuple[dict[str, Any], str]:
    from fewshot_ad.offline import conclusion, examine_offline

    report = examine_offline()
    means = " and ".join(report["watched_by"])
    return report, f"{conclusion(report)} ({', '.join(report['work'])}; watched by {means})"


@commands.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the overlays go.")] = Path("demo_output"),
    data: Annotated[
        Path | None,
        typer.Option(help="A product in MVTec layout (train/good, test/good, test/<defect>) to use instead."),
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="Good images to enroll from.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Enroll and inspect real images end to end; they ship with scikit-image (extra 'demo')."""
    with reported_errors(as_json):
        from fewshot_ad.demo import run_demo

        lines, report = run_demo(output, data, shots, seed, progress_bar, force=force)
    if as_json:
        print_json("demo", report)
    else:
        for line in lines:
            say(line)
