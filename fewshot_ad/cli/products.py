"""The shell commands of a product: enroll, add, inspect, info."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshot_ad.cli.options import (
    DeviceChoice,
    DeviceOption,
    DownloadChoice,
    EngineChoice,
    FusionOption,
    ImageScoreOption,
    JsonOption,
    MetricOption,
    PrecisionOption,
    PresetOption,
    ThreadsChoice,
    WeightsChoice,
    load_product,
    whole_number,
)
from fewshot_ad.cli.terminal import (
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

commands = typer.Typer()


@commands.command()
def enroll(
    good: Annotated[list[str], typer.Argument(help="Good images: a folder, files, or a quoted glob.")],
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
            help="Augmentations of the good images: auto, none, all, or names with optional strengths: "
            "gray, hflip, vflip, translate, rotate=90/180/270, brightness=0.8/1.2, contrast. Default: the preset's."
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
    """Enroll a product from 2 to 8 good images; a few seconds, nothing is trained."""
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
            image_size=image_size if image_size in (None, "auto") else whole_number(image_size, "--image-size"),  # type: ignore[arg-type]
            budget=budget,
            seed=seed,
            progress=progress,
            scoring=ScoringConfig(**chosen),  # type: ignore[arg-type]
            engine=engine.value if engine else None,  # type: ignore[arg-type]
            precision=precision.value if precision else None,  # type: ignore[arg-type]
            stages=[whole_number(s, "--stages") for s in stages.split(",")] if stages else None,
            fusion=fusion.value,  # type: ignore[arg-type]
            weights=weights,
            allow_download=allow_download,
            threads=threads,
            device=device.value,  # type: ignore[arg-type]
        )
        inspector.save(output)
    if as_json:
        print_json({"artifact": str(output), **inspector.info()})
        return
    for note in inspector.enrollment.notes:
        say(f"note: {note}")
    for reason in inspector.enrollment.reasons:
        say(reason)
    say(inspector.calibration.explain())
    say(f"enrolled {inspector.product} from {len(inspector.enrollment.support)} image(s) -> {output}")


@commands.command()
def add(
    artifact: Annotated[Path, typer.Argument(help="The product's .fsad file; it is replaced once all is done.")],
    good: Annotated[list[str], typer.Argument(help="Further good images: a folder, files, or a quoted glob.")],
    weights: WeightsChoice = None,
    allow_download: DownloadChoice = False,
    threads: ThreadsChoice = None,
    as_json: JsonOption = False,
) -> None:
    """Take further good images into a product; its views, scale and other settings stay."""
    with reported_errors(as_json), progress_bar(quiet=as_json) as progress:
        inspector = load_product(artifact, None, weights, allow_download, threads)
        notes = inspector.add(good[0] if len(good) == 1 else good, progress=progress)
        inspector.save(artifact)
    if as_json:
        print_json({"artifact": str(artifact), **inspector.info()})
        return
    for note in notes:
        say(f"note: {note}")
    say(inspector.calibration.explain())
    say(f"{inspector.product}: {len(inspector.enrollment.support)} images now -> {artifact}")


@commands.command()
def inspect(
    artifact: Annotated[Path, typer.Argument(help="The product's .fsad file.")],
    images: Annotated[list[str], typer.Argument(help="Images: folders, files, or quoted globs.")],
    heatmaps: Annotated[
        Path | None, typer.Option(help="Write an overlay of each image into this folder, as PNG.")
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
    """Inspect images: a verdict line each, a summary, exit code 0 (all good), 1 (an anomaly) or 2 (an error)."""
    good = anomalous = 0
    failures: list[str] = []
    with reported_errors(as_json):
        from fewshot_ad.errors import ImageError
        from fewshot_ad.images import expand_sources

        inspector = load_product(artifact, engine, weights, allow_download, threads, device)
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


@commands.command()
def info(
    artifact: Annotated[Path, typer.Argument(help="The product's .fsad file.")], as_json: JsonOption = False
) -> None:
    """Show what a product was enrolled from, with which settings, and where its threshold comes from."""
    with reported_errors(as_json):
        from fewshot_ad.artifact import describe, read_artifact

        record = describe(*read_artifact(artifact))
    if as_json:
        print_json(record)
        return
    import yaml

    print(yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=110), end="")
