"""The shell command of the line: inspect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, NoReturn

import typer

from fewshot_ad.cli.annotating import AnnotationFiles
from fewshot_ad.cli.options import (
    ArtifactArgument,
    Device,
    DeviceOption,
    DownloadOption,
    EncoderOption,
    EngineOption,
    ForceOption,
    JsonOption,
    MapsOption,
    RoiOption,
    ThreadsOption,
    WeightsOption,
    height_and_width,
    load_product,
    refuse_misplaced,
    region,
)
from fewshot_ad.cli.outputs import (
    MAP,
    OVERLAY,
    Outputs,
    check_maps,
    check_overlays,
    check_table,
    failure_row,
    overlay_names,
    remove_older,
    verdict_row,
    verdict_table,
    write_map,
    write_overlay,
)
from fewshot_ad.cli.terminal import (
    EXIT_ANOMALY,
    EXIT_ERROR,
    EXIT_GOOD,
    EXIT_REVIEW,
    print_json,
    progress_bar,
    report_failure,
    reported_errors,
    say,
    verdict_line,
)
from fewshot_ad.failures import explanation

if TYPE_CHECKING:
    from fewshot_ad.errors import ImageError
    from fewshot_ad.inspection.result import Inspection
    from fewshot_ad.inspector import Inspector


commands = typer.Typer()


@commands.command()
def inspect(
    artifact: ArtifactArgument,
    images: Annotated[list[str], typer.Argument(help="Images: folders, files, or quoted globs.")],
    *,
    heatmaps: Annotated[
        Path | None, typer.Option(help="Write an overlay of each image into this folder, as PNG.")
    ] = None,
    maps: MapsOption = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a table of the verdicts.")] = None,
    coco_file: Annotated[
        Path | None, typer.Option("--coco", help="Write the regions of all images as one COCO dataset, JSON.")
    ] = None,
    labelme_folder: Annotated[
        Path | None,
        typer.Option("--labelme", help="Write the regions of each image into this folder, as LabelMe has it."),
    ] = None,
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
    roi: RoiOption = None,
    engine: EngineOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Inspect images: a verdict each, a summary; exit code 0 all good, 1 an anomaly, 2 no verdict, 3 one to look at."""
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
        read = [artifact, *(Path(given) for given in (encoder, weights) if given is not None)]
    judge_images(
        partial(inspector.inspect_batch, errors="return", roi=region(roi, "--roi")),
        images,
        read=read,
        heatmaps=heatmaps,
        maps=maps,
        csv_file=csv_file,
        device=inspector.encoder.device,
        force=force,
        as_json=as_json,
        afterwards=lambda: _say_drift(inspector),
        annotations=AnnotationFiles(coco_file, labelme_folder, force=force),
    )


def _say_drift(inspector: Inspector) -> None:
    drift = inspector.drift()
    # Files need not lie in the order of a line, the defective ones together, say: only of light and camera is it said.
    if drift.status == "changed" and drift.kind != "part":
        say(f"drift: {drift.message}")


def judge_images(
    judge: Callable[[list[Path]], Iterable[Inspection | ImageError]],
    images: list[str],
    *,
    read: list[Path],
    heatmaps: Path | None,
    maps: Path | None,
    csv_file: Path | None,
    device: Device,
    force: bool,
    as_json: bool,
    afterwards: Callable[[], None] = lambda: None,
    annotations: AnnotationFiles | None = None,
) -> NoReturn:
    """Print a verdict on each image, write what is asked for beside it, and end the command.

    Args:
        judge: Verdicts on files, in order.
        images: What the user gave: folders, files, globs.
        read: Other files that the command reads.
        heatmaps: Folder for overlays.
        maps: Folder for anomaly maps.
        csv_file: Table of the verdicts.
        device: Where they are judged.
        force: Whether files of other kinds may be replaced.
        as_json: Whether the command was asked for JSON.
        afterwards: Says what is to be said after the summary.
        annotations: Files of regions; None for none.

    Raises:
        typer.Exit: Always: 0 all good, 1 an anomaly, 2 no verdict, 3 none of these, and one for someone to look at.
    """
    counts, outputs = Counter[str](), Outputs(as_json)
    with reported_errors(as_json):
        paths, failures = image_paths(images)
        inputs = [*read, *paths]
        overlays = _files_in(heatmaps, paths, OVERLAY)
        check_table(csv_file, inputs, force)
        check_overlays(filter(None, overlays), csv_file, inputs, force=force)
        map_files = _files_in(maps, paths, MAP)
        check_maps(filter(None, map_files), csv_file, inputs, force=force)
        if annotations is not None:
            annotations.check(paths, inputs)
        quiet = as_json or len(paths) < 20
        with verdict_table(csv_file, outputs) as write_row, progress_bar(quiet, lines=False) as progress:
            for failure in failures:
                counts["not found" if failure.missing else "unreadable"] += 1
                report_failure(failure.message, as_json, failure.name)
                write_row(failure_row(failure.name, failure.message))
            results = judge(paths)
            for done, (path, overlay, map_file, result) in enumerate(
                zip(paths, overlays, map_files, results, strict=True), start=1
            ):
                if progress is not None:
                    progress("inspect", done, len(paths))
                if isinstance(result, Exception):
                    counts["unreadable"] += 1
                    reason = explanation(result)
                    report_failure(reason, as_json, str(path))
                    write_row(failure_row(str(path), reason))
                    for older in filter(None, (overlay, map_file)):
                        outputs.write("older files", partial(remove_older, older))
                    continue
                counts[result.verdict] += 1
                drawn = _drawn(overlay, result, outputs, force)
                counts["overlays"] += drawn is not None
                mapped = _mapped(map_file, result, outputs, force)
                write_row(verdict_row(path, result))
                if annotations is not None:
                    annotations.add(path, result, outputs)
                _print_verdict(path, result, {"overlay": drawn, "map": mapped}, device, as_json)
        if annotations is not None:
            annotations.finish(outputs)
    if not as_json:
        say(_summary(counts, heatmaps))
        afterwards()
    failed = counts["unreadable"] or counts["not found"] or counts["not_inspectable"] or not outputs.complete
    review = EXIT_REVIEW if counts["review"] else EXIT_GOOD
    raise typer.Exit(EXIT_ERROR if failed else EXIT_ANOMALY if counts["anomalous"] else review)


def _files_in(folder: Path | None, paths: list[Path], suffix: str) -> list[Path | None]:
    """The file of each image in a folder; None for each where no folder is asked for."""
    return [None] * len(paths) if folder is None else [folder / name for name in overlay_names(paths, suffix)]


def _drawn(overlay: Path | None, result: Inspection, outputs: Outputs, force: bool) -> Path | None:
    """The overlay once it is written; None where none is wanted, or it cannot be."""
    if overlay is None or not outputs.write("overlays", partial(write_overlay, overlay, result, force=force)):
        return None
    return overlay


def _mapped(path: Path | None, result: Inspection, outputs: Outputs, force: bool) -> Path | None:
    """The map's file once it is written; None where none is wanted, or it cannot be."""
    if path is None or not outputs.write("maps", partial(write_map, path, result, force=force)):
        return None
    return path


def _summary(counts: Counter[str], heatmaps: Path | None) -> str:
    text = f"{counts['good']} good, {counts['anomalous']} anomalous, {counts['unreadable']} not readable"
    if counts["not found"]:
        text += f", {counts['not found']} not found"
    if counts["review"]:
        text += f", {counts['review']} to be looked at"
    if counts["not_inspectable"]:
        text += f", {counts['not_inspectable']} not inspectable"
    judged = sum(counts[verdict] for verdict in ("good", "review", "anomalous", "not_inspectable"))
    drawn = counts["overlays"]
    if heatmaps is None or not drawn:
        return text
    share = "" if drawn == judged else f"{drawn} of {judged} "
    return f"{text}; {share}overlays in {heatmaps}"


class NotAnImage(NamedTuple):
    """What an argument names that is no image: the argument, why, and whether there is nothing of that name."""

    name: str
    message: str
    missing: bool


def image_paths(images: list[str]) -> tuple[list[Path], list[NotAnImage]]:
    """The files that the arguments name, and what of them is none."""
    from fewshot_ad.arguments import image_sources
    from fewshot_ad.errors import ImageError
    from fewshot_ad.images import expand_sources

    paths: list[Path] = []
    failures: list[NotAnImage] = []
    for image in images:
        for source in expand_sources(image_sources(image, ImageError), keep_errors=True):
            if isinstance(source, ImageError):
                # What may not be looked at is there all the same.
                failures.append(NotAnImage(image, str(source), not isinstance(source.__cause__, OSError)))
            else:
                paths.append(Path(str(source)))
    return paths, failures


def _print_verdict(
    path: Path, result: Inspection, files: dict[str, Path | None], device: Device, as_json: bool
) -> None:
    if as_json:
        written = {kind: str(file) for kind, file in files.items() if file is not None}
        print_json("inspect", {"file": str(path), **result.as_dict(), "device": device, **written})
    else:
        say(verdict_line(path, result))
