"""The shell command of a day's record: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot_ad.cli.inspecting import image_paths
from fewshot_ad.cli.options import (
    DeviceOption,
    DownloadOption,
    EncoderOption,
    EngineOption,
    JsonOption,
    ThreadsOption,
    WeightsOption,
    files_of,
    load_judge,
)
from fewshot_ad.cli.terminal import (
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
def report(
    artifact: Annotated[Path, typer.Argument(help="The product's .fsad file, or the folder of a fitted baseline.")],
    images: Annotated[list[str], typer.Argument(help="Images: folders, files, or quoted globs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page, for example today.html.")],
    *,
    title: Annotated[str, typer.Option(help="Headline. Default: the product's name.")] = "",
    pictures: Annotated[
        int, typer.Option(min=0, max=1000, help="How many images that are not good are shown at most, the worst first.")
    ] = 60,
    encoder: EncoderOption = None,
    engine: EngineOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Inspect images and write one page: counts, scores, pictures of rejects; exit code 0, or 2 if one cannot be read.

    The page is one HTML file that loads nothing, and can be printed. Of a baseline that `fit` wrote it is the same.
    """
    with reported_errors(as_json):
        from fewshot_ad.enrollment.support import distinct_names
        from fewshot_ad.errors import ImageError
        from fewshot_ad.inspector import Inspector
        from fewshot_ad.line import Report, check_report

        given: dict[str, Any] = {"encoder": encoder, "engine": engine, "weights": weights, "threads": threads}
        given["allow_download"] = allow_download
        inspector = load_judge("report", artifact, images, device=device, given=given)
        paths, failures = image_paths(images)
        # Before the work, not after it.
        check_report(output, [*files_of(artifact), *paths])
        page = Report(inspector, pictures=pictures)
        counts = dict.fromkeys(("good", "review", "anomalous", "not_inspectable"), 0)
        for failure in failures:
            report_failure(failure.message, as_json, failure.name)
            page.add_failure(failure.name, failure.message)
        unreadable = len(failures)
        with progress_bar(quiet=as_json) as progress:
            results = inspector.inspect_batch(list(paths), errors="return")
            named = zip(paths, distinct_names(paths), results, strict=True)
            for done, (path, name, result) in enumerate(named, start=1):
                if progress is not None:
                    progress("inspect", done, len(paths))
                if isinstance(result, ImageError):
                    unreadable += 1
                    message = explanation(result)
                    report_failure(message, as_json, str(path))
                    page.add_failure(name, message)
                    continue
                counts[result.verdict] += 1
                page.add(result, name)
        drift = inspector.drift() if isinstance(inspector, Inspector) else None
        # Files need not lie in the order of a line: only of light and camera is it said.
        page.write(output, title, drift=drift if drift is not None and drift.kind != "part" else None)
    if as_json:
        print_json("report", {"report": str(output), "product": inspector.product, **counts, "unreadable": unreadable})
    else:
        shown = ", ".join(f"{count} {verdict.replace('_', ' ')}" for verdict, count in counts.items() if count)
        say(f"{shown or 'no image judged'}{f', {unreadable} not readable' if unreadable else ''} -> {output}")
    raise typer.Exit(EXIT_ERROR if unreadable else EXIT_GOOD)
