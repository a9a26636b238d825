"""The shell command that says whether a line has changed: drift."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fewshot_ad.cli.inspecting import image_paths
from fewshot_ad.cli.options import (
    ArtifactArgument,
    DownloadOption,
    EncoderOption,
    JsonOption,
    ThreadsOption,
    WeightsOption,
    load_product,
    refuse_misplaced,
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
)
from fewshot_ad.failures import explanation

commands = typer.Typer()


@commands.command()
def drift(
    artifact: ArtifactArgument,
    images: Annotated[
        list[str],
        typer.Argument(help="Images of the line in the order in which they were taken: folders, files, globs."),
    ],
    *,
    by_time: Annotated[
        bool, typer.Option("--by-time", help="Take them in the order of the files' times, not of their names.")
    ] = False,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether light, camera or part have changed over a line: exit code 0 (no), 1 (yes) or 2 (cannot be said)."""
    with reported_errors(as_json):
        refuse_misplaced("drift", artifact, images)
        inspector = load_product(
            artifact, encoder=encoder, weights=weights, allow_download=allow_download, threads=threads
        )
        paths, failures = image_paths(images)
        for failure in failures:
            report_failure(failure.message, as_json, failure.name)
        if by_time:
            paths = sorted(paths, key=_time)
        failed = len(failures)
        with progress_bar(quiet=as_json) as progress:
            for done, result in enumerate(inspector.inspect_batch(paths, errors="return"), 1):
                if isinstance(result, Exception):
                    failed += 1
                    report_failure(explanation(result), as_json, str(paths[done - 1]))
                if progress is not None:
                    progress("inspect", done, len(paths))
        found = inspector.drift()
    if as_json:
        print_json("drift", {name: value for name, value in found.as_dict().items() if name != "schema"})
    else:
        say(f"{inspector.product}: {found.message}")
        for measure, recent in found.recent.items():
            enrolled = found.reference[measure]
            beside = "" if enrolled != enrolled else f", enrolled {enrolled:.4g}"
            say(f"  {measure}: latest {recent:.4g}{beside}")
    unsaid = failed or found.status == "too few images"
    raise typer.Exit(EXIT_ANOMALY if found.status == "changed" else EXIT_ERROR if unsaid else EXIT_GOOD)


def _time(path: Path) -> tuple[float, str]:
    try:
        return os.stat(path).st_mtime, str(path)
    except OSError:
        return 0.0, str(path)
