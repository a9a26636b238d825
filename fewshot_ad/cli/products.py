"""The shell commands of a product: enroll, add, inspect, info."""

from __future__ import annotations

import shlex
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fewshot_ad.cli.limits import LimitsOption, check_limits, say_limits, stored_limits, write_limits
from fewshot_ad.cli.options import (
    ArtifactArgument,
    Device,
    DeviceOption,
    DownloadOption,
    EncoderOption,
    EngineOption,
    ForceOption,
    Fusion,
    ImageScore,
    JsonOption,
    KeepOutliersOption,
    Metric,
    Precision,
    PresetName,
    TakeOutliersOption,
    ThreadsOption,
    WeightsOption,
    height_and_width,
    is_product,
    load_product,
    locked,
    refuse_misplaced,
    whole_numbers,
    working_scales,
)
from fewshot_ad.cli.outputs import (
    Outputs,
    check_overlays,
    check_table,
    failure_row,
    overlay_names,
    remove_overlay,
    verdict_row,
    verdict_table,
    write_overlay,
)
from fewshot_ad.cli.terminal import (
    EXIT_ANOMALY,
    EXIT_ERROR,
    EXIT_GOOD,
    print_json,
    progress_bar,
    report_failure,
    reported_errors,
    say,
    verdict_line,
)
from fewshot_ad.failures import explanation

if TYPE_CHECKING:
    from fewshot_ad.inspection import Inspection
    from fewshot_ad.scoring import ScoringConfig

commands = typer.Typer()


@commands.command()
def enroll(
    good: Annotated[list[str], typer.Argument(help="Good images: a folder, files, or a quoted glob.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The product's file, for example bracket.fsad.")],
    *,
    product_name: Annotated[
        str | None, typer.Option("--product", help="Name of the product. Default: the output's name.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="A shipped encoder, or a timm model such as resnet18 (extra 'torch').")
    ] = "lite0_parts",
    preset: Annotated[
        PresetName,
        typer.Option(
            help="Settings that go together: views, image size, budget and precision; options of these names come "
            "before it."
        ),
    ] = "balanced",
    views: Annotated[
        str | None,
        typer.Option(
            help="Views of the good images, enrolled beside them: auto, none, all, or names with optional strengths: "
            "gray, hflip, vflip, translate, rotate=90/180/270, brightness=0.8/1.2, contrast. Default: the preset's."
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            help="Working scale in pixels (64 to 4096), or auto. Larger finds smaller defects, slower; 256,512 looks "
            "at both. Default: the preset's."
        ),
    ] = None,
    min_defect: Annotated[
        float | None,
        typer.Option(
            help="Size of the smallest defect that matters, as a share of the image's side: 0.01 is 10 pixels of a "
            "1000 x 1000 image. It decides the working scale. Default: 0.02."
        ),
    ] = None,
    min_defect_px: Annotated[float | None, typer.Option(help="The same in pixels, instead.")] = None,
    min_defect_mm: Annotated[
        float | None, typer.Option(help="The same in millimeters, instead; needs --mm-per-px.")
    ] = None,
    mm_per_px: Annotated[float | None, typer.Option(help="Millimeters that one pixel of the images covers.")] = None,
    max_ms: Annotated[
        float | None, typer.Option(help="Milliseconds that the encoder may take per image on this machine.")
    ] = None,
    max_false_reject: Annotated[
        float | None,
        typer.Option(
            help="Share of good parts that may be rejected, such as 0.01: a higher threshold for less. Default: "
            "rejected good parts and missed defects weigh the same."
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Size of each memory bank, in vectors. Default: the preset's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    metric: Annotated[Metric | None, typer.Option(help="Distance of patch embeddings. Default: l2.")] = None,
    image_score: Annotated[
        ImageScore | None, typer.Option(help="How patch distances become a score. Default: top_mean.")
    ] = None,
    top_fraction: Annotated[
        float | None, typer.Option(help="Share of the patches that top_mean averages. Default: 0.02.")
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Smoothing of the score map, in pixels at a scale of 256. Default: 4.")
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(help="Stages of the backbone to use, for example 2,3. Default: the encoder's own."),
    ] = None,
    fusion: Annotated[Fusion, typer.Option(help="Join the stages, or search each on its own.")] = "concat",
    engine: EngineOption = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="f32: the same scores on every processor; bf16: faster where the processor has it, refused elsewhere; "
            "auto: bf16 where it is faster and the scores stay the same. Default: the preset's."
        ),
    ] = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    keep_outliers: KeepOutliersOption = False,
    limits: LimitsOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Enroll a product from 2 to 8 good images; a few seconds, nothing is trained."""
    with reported_errors(as_json), progress_bar(quiet=as_json) as progress:
        from fewshot_ad.artifact import check_product_file
        from fewshot_ad.inspector import Inspector

        _refuse_products(good)
        check_product_file(output, replace=force, protected=force)
        check_limits(limits, output, good, force=force)
        inspector = Inspector.from_support(
            good,
            product=product_name or output.stem,
            encoder=encoder,
            preset=preset,
            views=views,
            image_size=working_scales(image_size, "--image-size"),
            budget=budget,
            seed=seed,
            min_defect=min_defect,
            min_defect_px=min_defect_px,
            min_defect_mm=min_defect_mm,
            mm_per_px=mm_per_px,
            max_ms=max_ms,
            max_false_reject=max_false_reject,
            progress=progress,
            scoring=_scoring(metric=metric, image_score=image_score, top_fraction=top_fraction, sigma=sigma),
            engine=engine,
            precision=precision,
            stages=whole_numbers(stages, "--stages"),
            fusion=fusion,
            weights=weights,
            allow_download=allow_download,
            threads=threads,
            device=device,
            keep_outliers=keep_outliers,
        )
        # Once more: another process may have written it meanwhile.
        check_product_file(output, replace=force, protected=force)
        inspector.save(output, force=force)
        if limits is not None:
            write_limits(limits, inspector.limits_picture(), force=force)
    if as_json:
        print_json("product", {"artifact": str(output), **inspector.info()})
        return
    for note in inspector.enrollment.notes:
        say(f"note: {note}")
    for reason in inspector.enrollment.reasons:
        say(reason)
    say(inspector.calibration.explain())
    say_limits(inspector.info(), limits)
    say(f"enrolled {inspector.product} from {len(inspector.enrollment.support)} image(s) -> {output}")


def _refuse_products(good: list[str]) -> None:
    """Images to enroll from that are a product's file: what was meant is to add to it.

    Raises:
        ArgumentError: There is one among them.
    """
    from fewshot_ad.errors import ArgumentError

    for name in good:
        if is_product(name):
            raise ArgumentError(
                f"expected good images, got the product {name}. To take further images into it: "
                f"{shlex.join(['fewshot-ad', 'add', name, 'IMAGES'])}"
            )


def _scoring(**options: str | float | None) -> ScoringConfig:
    """The scoring with the defaults of `ScoringConfig` where an option was left out."""
    from fewshot_ad.scoring import ScoringConfig

    settings: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    return ScoringConfig(**settings)


@commands.command()
def add(
    artifact: Annotated[Path, typer.Argument(help="The product's .fsad file; it is replaced once all is done.")],
    good: Annotated[list[str], typer.Argument(help="Further good images: a folder, files, or a quoted glob.")],
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    force: TakeOutliersOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take further good images into a product; its views, scale and other settings stay."""
    with reported_errors(as_json), progress_bar(quiet=as_json) as progress:
        refuse_misplaced("add", artifact, good)
        from fewshot_ad.artifact import check_product_file

        # Whoever adds to the product at the same time waits here, so that no addition is lost.
        with locked(artifact):
            inspector = load_product(
                artifact, encoder=encoder, weights=weights, allow_download=allow_download, threads=threads
            )
            # Before the work, not after it.
            check_product_file(artifact)
            notes = inspector.add(good, progress=progress, force=force)
            inspector.save(artifact)
    if as_json:
        print_json("product", {"artifact": str(artifact), **inspector.info()})
        return
    for note in notes:
        say(f"note: {note}")
    say(inspector.calibration.explain(inspector.threshold if inspector.threshold_set_by_hand else None))
    say_limits(inspector.info())
    say(f"{inspector.product}: {len(inspector.enrollment.support)} images now -> {artifact}")


@commands.command()
def inspect(
    artifact: ArtifactArgument,
    images: Annotated[list[str], typer.Argument(help="Images: folders, files, or quoted globs.")],
    *,
    heatmaps: Annotated[
        Path | None, typer.Option(help="Write an overlay of each image into this folder, as PNG.")
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a table of the verdicts.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Use this threshold instead of the enrolled one.", show_default=False)
    ] = None,
    encoder: EncoderOption = None,
    warm_up: Annotated[
        list[str] | None,
        typer.Option(
            help="WIDTHxHEIGHT of images to come, in pixels: compile the network for them before the first verdict. "
            "May be repeated.",
        ),
    ] = None,
    engine: EngineOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Inspect images: a verdict line for each, a summary, exit code 0 (all good), 1 (an anomaly) or 2 (no verdict)."""
    counts, outputs = Counter[str](), Outputs(as_json)
    with reported_errors(as_json):
        refuse_misplaced("inspect", artifact, images)
        inspector = load_product(
            artifact,
            encoder=encoder,
            engine=engine,
            weights=weights,
            allow_download=allow_download,
            threads=threads,
            device=device,
        )
        if threshold is not None:
            inspector.threshold = threshold
        for size in warm_up or []:
            inspector.warm_up(height_and_width(size, "--warm-up"))
        paths, failures = _image_paths(images)
        read = [artifact, *paths, *(Path(given) for given in (encoder, weights) if given is not None)]
        overlays = [heatmaps / name if heatmaps is not None else None for name in overlay_names(paths)]
        check_table(csv_file, read, force)
        check_overlays(filter(None, overlays), csv_file, read, force=force)
        with verdict_table(csv_file, outputs) as write_row, progress_bar(quiet=as_json or len(paths) < 20) as progress:
            for failure in failures:
                counts["not found" if failure.missing else "unreadable"] += 1
                report_failure(failure.message, as_json, failure.name)
                write_row(failure_row(failure.name, failure.message))
            results = inspector.inspect_batch(paths, errors="return")
            for done, (path, overlay, result) in enumerate(zip(paths, overlays, results, strict=True), start=1):
                if progress is not None:
                    progress("inspect", done, len(paths))
                if isinstance(result, Exception):
                    counts["unreadable"] += 1
                    reason = explanation(result)
                    report_failure(reason, as_json, str(path))
                    write_row(failure_row(str(path), reason))
                    if overlay is not None:
                        outputs.write("older overlays", partial(remove_overlay, overlay))
                    continue
                counts[result.verdict] += 1
                drawn = _drawn(overlay, result, outputs, force)
                counts["overlays"] += drawn is not None
                write_row(verdict_row(path, result))
                _print_verdict(path, result, drawn, inspector.encoder.device, as_json)
    if not as_json:
        say(_summary(counts, heatmaps))
    failed = counts["unreadable"] or counts["not found"] or counts["not_inspectable"] or not outputs.complete
    raise typer.Exit(EXIT_ERROR if failed else EXIT_ANOMALY if counts["anomalous"] else EXIT_GOOD)


def _drawn(overlay: Path | None, result: Inspection, outputs: Outputs, force: bool) -> Path | None:
    """The overlay once it is written; None where none is wanted, or it cannot be."""
    if overlay is None or not outputs.write("overlays", partial(write_overlay, overlay, result, force=force)):
        return None
    return overlay


def _summary(counts: Counter[str], heatmaps: Path | None) -> str:
    text = f"{counts['good']} good, {counts['anomalous']} anomalous, {counts['unreadable']} not readable"
    if counts["not found"]:
        text += f", {counts['not found']} not found"
    if counts["not_inspectable"]:
        text += f", {counts['not_inspectable']} not inspectable"
    judged, drawn = counts["good"] + counts["anomalous"] + counts["not_inspectable"], counts["overlays"]
    if heatmaps is None or not drawn:
        return text
    share = "" if drawn == judged else f"{drawn} of {judged} "
    return f"{text}; {share}overlays in {heatmaps}"


class _Failure(NamedTuple):
    """What an argument names that is no image: the argument, why, and whether there is nothing of that name."""

    name: str
    message: str
    missing: bool


def _image_paths(images: list[str]) -> tuple[list[Path], list[_Failure]]:
    """The files that the arguments name, and what of them is none."""
    from fewshot_ad.arguments import image_sources
    from fewshot_ad.errors import ImageError
    from fewshot_ad.images import expand_sources

    paths: list[Path] = []
    failures: list[_Failure] = []
    for image in images:
        for source in expand_sources(image_sources(image, ImageError), keep_errors=True):
            if isinstance(source, ImageError):
                # What may not be looked at is there all the same.
                failures.append(_Failure(image, str(source), not isinstance(source.__cause__, OSError)))
            else:
                paths.append(Path(str(source)))
    return paths, failures


def _print_verdict(path: Path, result: Inspection, overlay: Path | None, device: Device, as_json: bool) -> None:
    if as_json:
        drawn = {"overlay": str(overlay)} if overlay else {}
        print_json("inspect", {"file": str(path), **result.as_dict(), "device": device, **drawn})
    else:
        say(verdict_line(path, result))


@commands.command()
def info(
    artifact: ArtifactArgument, limits: LimitsOption = None, force: ForceOption = False, as_json: JsonOption = False
) -> None:
    """Show what a product was enrolled from, with which settings, where its threshold comes from and what it finds."""
    with reported_errors(as_json):
        from fewshot_ad.artifact import describe, read_artifact

        refuse_misplaced("info", artifact)
        check_limits(limits, artifact, (), force=force)
        tensors, stored = read_artifact(artifact)
        record = describe(tensors, stored)
        if limits is not None:
            write_limits(limits, stored_limits(tensors, stored), force=force)
    if as_json:
        print_json("product", record)
        return
    import yaml

    for line in yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=110).splitlines():
        say(line)
    say("")
    say(record["calibration"]["explanation"])
    say_limits(record, limits)
