"""The shell command that shows and narrows where a product looks: roi."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_ad.cli.options import (
    DownloadOption,
    EncoderOption,
    ForceOption,
    IgnoreOption,
    JsonOption,
    ThreadsOption,
    WeightsOption,
    load_product,
    locked,
    refuse_misplaced,
    region,
)
from fewshot_ad.cli.terminal import print_json, reported_errors, say
from fewshot_ad.errors import ArgumentError, SupportSetError

if TYPE_CHECKING:
    from fewshot_ad.enrollment.embedding import Reference
    from fewshot_ad.inspector import Inspector

commands = typer.Typer()
# What the pictures say of themselves, see `demo.png`.
PICTURE_MARK, MASK_MARK = "region of interest", "mask of a region of interest"


@commands.command()
def roi(
    artifact: Annotated[Path, typer.Argument(help="The product's .fsad file; a change replaces it.")],
    *,
    polygon: Annotated[
        list[str] | None,
        typer.Option(
            "--polygon",
            "--roi",
            help="Look only here from now on: a polygon 'X,Y X,Y X,Y' or a box X,Y,WIDTH,HEIGHT in pixels of the first "
            "support image, or a mask image, white where it counts. May be repeated.",
        ),
    ] = None,
    ignore: IgnoreOption = None,
    draw: Annotated[bool, typer.Option("--draw", help="Draw it on a page in the browser of this machine.")] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the page's address.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page. Default: a free one.")] = 0,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="Write what is drawn as a mask image into this PNG, for fewshot-ad enroll --roi, and leave the "
            "product as it is."
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write a PNG of the first support image with the region on it.")
    ] = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show where a product looks, or let it look at less; fewshot-ad undo takes that back.

    The memory bank and the threshold stay. To set a threshold for the region, draw it with --mask mask.png and enroll
    again with --roi mask.png.
    """
    with reported_errors(as_json):
        refuse_misplaced("roi", artifact)
        if not artifact.exists():  # said before anything is drawn
            load_product(artifact)
        spec, left_out = region(polygon, "--polygon"), region(ignore, "--ignore")
        if draw and (spec is not None or left_out is not None):
            raise ArgumentError("expected --draw, or --polygon and --ignore, got both. Leave one out.")
        if mask is not None and not draw and spec is None and left_out is None:
            raise ArgumentError("expected --mask with --draw, --polygon or --ignore, got it alone. Add --draw.")
        for path, option, mark in ((picture, "--picture", PICTURE_MARK), (mask, "--mask", MASK_MARK)):
            _check_picture(path, option, mark, artifact, force)
        options: dict[str, Any] = {
            "encoder": encoder, "weights": weights, "allow_download": allow_download, "threads": threads
        }  # fmt: skip
        if draw:
            # Drawing takes its time, and others may change the product meanwhile: it is locked only afterwards.
            drawn = _drawn(load_product(artifact, **options), no_browser, port, as_json)
            if drawn is None:
                raise ArgumentError("the region was not drawn: it was canceled on the page. Nothing was changed.")
            spec, left_out = drawn["roi"] or None, drawn["ignore"] or None
        notes: tuple[str, ...] = ()
        if mask is not None:
            _write_mask(load_product(artifact, **options), spec, left_out, mask, force)
            notes = (f"mask: {mask}. Use it with fewshot-ad enroll --roi {mask}",)
            inspector = load_product(artifact, **options)
        elif spec is None and left_out is None:
            inspector = load_product(artifact, **options)
        else:
            from fewshot_ad.artifact import check_product_file

            with locked(artifact):
                inspector = load_product(artifact, **options)
                check_product_file(artifact)
                notes = inspector.narrow_roi(spec, left_out)
                inspector.save(artifact)
        if picture is not None:
            _write_picture(inspector, picture, force)
    _report(inspector, artifact, notes, as_json)


def _check_picture(path: Path | None, option: str, mark: str, artifact: Path, force: bool) -> None:
    if path is None:
        return
    from fewshot_ad.cli.outputs import check_picture

    check_picture(path, option, mark, [], [artifact], force=force)


def _first(inspector: Inspector) -> Reference:
    if not inspector.references:
        raise SupportSetError(
            f"{inspector.product}: expected a product that holds its first support image to draw on, got one without: "
            "its working scale is too large. Give --roi to fewshot-ad enroll."
        )
    return inspector.references[0]


def _drawn(inspector: Inspector, no_browser: bool, port: int, as_json: bool) -> dict[str, list[Any]] | None:
    from fewshot_ad.cli.drawing import draw_region  # a server: not in every command's memory

    first = _first(inspector)
    try:
        return draw_region(
            first.png.tobytes(),
            first.image_hw,
            lambda text: typer.echo(text, err=True) if as_json else say(text),
            open_browser=not no_browser,
            port=port,
        )
    except OSError as error:
        raise ArgumentError(f"--port: expected a port that is free, got {port} ({error}). Leave it out.") from error


def _write_mask(inspector: Inspector, spec: Any, left_out: Any, mask: Path, force: bool) -> None:
    import numpy as np

    from fewshot_ad.demo import write_png
    from fewshot_ad.images import drawn_weights

    weights = drawn_weights(spec, left_out, _first(inspector).image_hw)
    write_png(mask, np.repeat(weights[..., None], 3, axis=2), MASK_MARK, force=force)


def _write_picture(inspector: Inspector, picture: Path, force: bool) -> None:
    from fewshot_ad.demo import write_png
    from fewshot_ad.inspection.overlay import draw_region_of_interest

    first = _first(inspector)
    shown = first.content.copy()
    cares = inspector.inspect(shown).cares
    if cares is not None:
        draw_region_of_interest(shown, cares)
    write_png(picture, shown, PICTURE_MARK, force=force)


def _report(inspector: Inspector, artifact: Path, notes: tuple[str, ...], as_json: bool) -> None:
    record = inspector.info()
    if as_json:
        print_json("product", {"artifact": str(artifact), **record})
        return
    for note in notes:
        say(f"note: {note}")
    found = record["roi"]
    if found is None:
        say(f"{inspector.product}: all of the image counts")
    else:
        x, y, width, height = found["box"]
        say(f"{inspector.product}: {found['share']:.0%} of the image counts, within {x},{y},{width},{height}")
