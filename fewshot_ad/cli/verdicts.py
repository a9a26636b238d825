"""The shell commands that hold a product to images whose truth is known: check, calibrate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_ad.cli.limits import say_limits
from fewshot_ad.cli.options import (
    DeviceOption,
    DownloadOption,
    EncoderOption,
    EngineOption,
    ForceOption,
    JsonOption,
    ThreadsOption,
    WeightsOption,
    files_of,
    is_fitted,
    load_fitted,
    load_judge,
    load_product,
    locked,
    refuse_misplaced,
)
from fewshot_ad.cli.outputs import Outputs, check_picture, check_table, table_row, verdict_table
from fewshot_ad.cli.terminal import (
    EXIT_ERROR,
    EXIT_GOOD,
    print_json,
    progress_bar,
    reported_errors,
    say,
)

if TYPE_CHECKING:
    from fewshot_ad.check import Check, CheckedImage, UncountedImage
    from fewshot_ad.inspector import Inspector
    from fewshot_ad.zoo.fitted import Baseline

COLUMNS = (*("file", "truth", "verdict", "outcome", "score", "threshold", "severity", "error"), "schema")
TABLE_SCHEMA = "fewshot-ad/check-csv/1"
# What a sheet says of itself, see `demo.png`.
SHEET_MARK = "sheet"

commands = typer.Typer()

GoodOption = Annotated[
    list[str],
    typer.Option("--good", help="Good images that were not enrolled: a folder, a file or a quoted glob. Repeatable."),
]
BadOption = Annotated[
    list[str] | None,
    typer.Option("--bad", help="Images of defective parts: a folder, a file or a quoted glob. Repeatable."),
]


@commands.command()
def check(
    artifact: Annotated[Path, typer.Argument(help="The product's .fsad file, or the folder of a fitted baseline.")],
    good: GoodOption,
    bad: BadOption = None,
    *,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Write one PNG of at most 24 overlays: what is missed, what is rejected, what is close."),
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a table of all images.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Use this threshold instead of the enrolled one.", show_default=False)
    ] = None,
    encoder: EncoderOption = None,
    engine: EngineOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Hold a product to images whose truth is known: what it gets wrong, and which threshold would do better.

    The product is not changed. Exit code 0 whatever the verdicts are, 2 for an error or an image that cannot be read.
    """
    outputs = Outputs(as_json)
    with reported_errors(as_json):
        given: dict[str, Any] = {"encoder": encoder, "engine": engine, "weights": weights, "threads": threads}
        given["allow_download"] = allow_download
        inspector = load_judge("check", artifact, device=device, given=given)
        if threshold is not None:
            inspector.threshold = threshold
        good_images, bad_images = _images(good), None if bad is None else _images(bad)
        images = [image for image in [*good_images, *(bad_images or [])] if isinstance(image, Path)]
        others = [*files_of(artifact), *(Path(file) for file in (encoder, weights) if file is not None)]
        check_table(csv_file, [*images, *others], force, COLUMNS)
        check_picture(sheet, "--sheet", SHEET_MARK, images, others, force=force)
        with progress_bar(quiet=as_json or len(images) < 20) as progress:
            result = inspector.check(good_images, bad_images, progress=progress)
        if csv_file is not None:
            outputs.write("table", partial(_write_table, csv_file, result, outputs))
        drawn = sheet is not None and outputs.write("sheet", partial(_write_sheet, sheet, result, inspector, force))
        if as_json:
            print_json("check", result.as_dict())
        else:
            _print(result, sheet if drawn else None)
    raise typer.Exit(EXIT_ERROR if result.unreadable or not outputs.complete else EXIT_GOOD)


@commands.command()
def calibrate(
    artifact: Annotated[
        Path,
        typer.Argument(
            help="The product's .fsad file, or the folder of a fitted baseline; it is replaced once all is done."
        ),
    ],
    good: GoodOption,
    bad: BadOption = None,
    *,
    max_false_reject: Annotated[
        float | None,
        typer.Option(
            help="Share of good parts that may be rejected, such as 0.01: promised from 99 good images on, 0.05 from "
            "19; with fewer it is predicted. Default: the enrollment's, or the lowest expected cost."
        ),
    ] = None,
    max_review: Annotated[
        float | None,
        typer.Option(
            help="Share of good parts that someone may have to look at, those rejected among them, such as 0.05: "
            "images that score so high, and are not rejected, get the verdict review, exit code 3."
        ),
    ] = None,
    encoder: EncoderOption = None,
    engine: EngineOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Set a product's threshold from further good images, and bad ones where there are such.

    A threshold that was set by hand is replaced. Nothing else of the product changes.
    """
    with reported_errors(as_json):
        given: dict[str, Any] = {"encoder": encoder, "engine": engine, "weights": weights, "threads": threads}
        given["allow_download"] = allow_download
        if is_fitted(artifact):
            given["max_review"] = max_review
            _calibrate_fitted(load_fitted(artifact, given, device), artifact, good, bad, max_false_reject, as_json)
            return
        refuse_misplaced("calibrate", artifact)
        from fewshot_ad.artifact import check_product_file

        # As in `add`: nobody else changes the product meanwhile.
        with locked(artifact), progress_bar(quiet=as_json) as progress:
            inspector = load_product(artifact, device=device, **given)
            # Before the work, not after it.
            check_product_file(artifact)
            sides = _named(good), None if bad is None else _named(bad)
            change = inspector.calibrate(*sides, max_false_reject, max_review=max_review, progress=progress)
            inspector.save(artifact)
    if as_json:
        print_json("product", {"artifact": str(artifact), **inspector.info()})
        return
    for line in change.explain().splitlines():
        say(line)
    say_limits(inspector.info())


def _calibrate_fitted(
    baseline: Baseline,
    folder: Path,
    good: list[str],
    bad: list[str] | None,
    max_false_reject: float | None,
    as_json: bool,
) -> None:
    """Set the threshold of a fitted baseline, and store it again."""
    sides = _named(good), None if bad is None else _named(bad)
    with progress_bar(quiet=as_json) as progress:
        said = baseline.calibrate(*sides, max_false_reject, progress=progress)
    baseline.save(folder, force=True)
    if as_json:
        print_json("fit", {**baseline.info(), "schema": "fewshot-ad/fit/1", "folder": str(folder)})
        return
    for line in [*said.splitlines(), *baseline.notes]:
        say(line)


def _named(names: list[str]) -> list[Any]:
    """The files that the arguments name: those of a calibration, which changes the product.

    Raises:
        ImageError: One of them names none, be it for a slip.
    """
    images = _images(names)
    for image in images:
        if isinstance(image, Exception):
            raise image
    return images


def _images(names: list[str]) -> list[Any]:
    """The files that the arguments name; in place of one that names none, its `ImageError`."""
    from fewshot_ad.images import expand_sources

    return expand_sources(names, keep_errors=True)


def _write_table(path: Path, result: Check, outputs: Outputs) -> None:
    with verdict_table(path, outputs, COLUMNS) as write_row:
        for image in result.images:
            write_row(_row(image, result.threshold))
        for uncounted in result.left_out:
            write_row(_uncounted_row(uncounted, "LEFT OUT"))
        for uncounted in result.unreadable:
            write_row(_uncounted_row(uncounted, "ERROR"))


def _row(image: CheckedImage, threshold: float) -> dict[str, Any]:
    cells = {
        "file": image.file,
        "truth": image.truth,
        "verdict": "ANOMALOUS" if image.is_anomalous else "GOOD",
        "outcome": image.outcome,
        "score": f"{image.score:.6g}",
        "threshold": f"{threshold:.6g}",
        "severity": f"{image.severity:.4f}",
    }
    return table_row(cells, TABLE_SCHEMA)


def _uncounted_row(image: UncountedImage, verdict: str) -> dict[str, Any]:
    cells = {"file": image.file or image.name, "truth": image.truth, "verdict": verdict, "error": image.reason}
    return table_row(cells, TABLE_SCHEMA)


def _write_sheet(path: Path, result: Check, inspector: Inspector | Baseline, force: bool) -> None:
    from fewshot_ad.check.sheet import draw_sheet
    from fewshot_ad.demo import write_png

    write_png(path, draw_sheet(result, lambda image: inspector.inspect(str(image.file))), SHEET_MARK, force=force)


def _print(result: Check, sheet: Path | None) -> None:
    for line in result.explain().splitlines():
        say(line)
    if sheet is not None:
        say("")
        say(f"Sheet of the mistakes and of the closest calls: {sheet}")
