"""The shell commands by which an operator corrects a product, and takes that back: accept, reject, undo, history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_ad.cli.options import (
    ArtifactArgument,
    DownloadOption,
    EncoderOption,
    JsonOption,
    ThreadsOption,
    WeightsOption,
    load_product,
    locked,
    refuse_misplaced,
)
from fewshot_ad.cli.terminal import print_json, progress_bar, reported_errors, say
from fewshot_ad.errors import SupportSetError

if TYPE_CHECKING:
    from fewshot_ad.inspector import Inspector

commands = typer.Typer()

ChangedArgument = Annotated[Path, typer.Argument(help="The product's .fsad file; it is replaced once all is done.")]


@commands.command()
def accept(
    artifact: ChangedArgument,
    image: Annotated[str, typer.Argument(help="The image of a good part that was rejected.")],
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Take it although it is like a known defect, lets defects pass or is not judged."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take the image of a good part that was rejected: it and images like it are good from then on, as a rule.

    It is refused where defects that are caught now would then pass. fewshot-ad undo takes it back.
    """
    with reported_errors(as_json):
        refuse_misplaced("accept", artifact, [image])
        with locked(artifact), progress_bar(quiet=as_json) as progress:
            inspector = _changeable(artifact, encoder, weights, allow_download, threads)
            notes = inspector.accept(image, progress=progress, force=force)
            inspector.save(artifact)
    _report(inspector, artifact, notes, as_json)


@commands.command()
def reject(
    artifact: ChangedArgument,
    image: Annotated[str, typer.Argument(help="The image of a defective part.")],
    region: Annotated[
        str | None,
        typer.Option(help="X,Y,WIDTH,HEIGHT of the defect in pixels of the image. Default: what is most unusual."),
    ] = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the image of a defective part as evidence: accept and add then refuse images with such patches.

    The threshold stays, so images like it are judged as before. fewshot-ad undo takes it back.
    """
    with reported_errors(as_json):
        refuse_misplaced("reject", artifact, [image])
        place = None if region is None else _region(region)
        with locked(artifact):
            inspector = _changeable(artifact, encoder, weights, allow_download, threads)
            notes = inspector.reject(image, place)
            inspector.save(artifact)
    _report(inspector, artifact, notes, as_json)


@commands.command()
def undo(
    artifact: ChangedArgument,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    allow_download: DownloadOption = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the last change of a product back: add, accept, reject, calibrate, or a threshold set by hand.

    The file is then what it was before, to the byte, unless older steps back had to be dropped.
    """
    with reported_errors(as_json):
        refuse_misplaced("undo", artifact)
        with locked(artifact):
            inspector = _changeable(artifact, encoder, weights, allow_download, threads)
            change = inspector.undo()
            inspector.save(artifact)
    _report(inspector, artifact, (f"taken back: {change.text}, of {change.time}",), as_json)


@commands.command()
def history(artifact: ArtifactArgument, as_json: JsonOption = False) -> None:
    """List what was done to a product since it was enrolled, the latest last, and the defects it was shown."""
    with reported_errors(as_json):
        from fewshot_ad.artifact import describe, read_artifact

        refuse_misplaced("history", artifact)
        record = describe(*read_artifact(artifact))
    if as_json:
        print_json("product", record)
        return
    for number, change in enumerate(record["history"], 1):
        kept = "" if change["can_be_undone"] else " (cannot be undone: its step back was dropped)"
        say(f"{number:>4}  {change['time']}  {change['text']}{kept}")
    if not record["history"]:
        say(f"{record['product']}: as it was enrolled, {record['created']}")
    for defect in record["known_defects"]:
        place = "" if defect["region"] is None else " at {},{},{},{}".format(*defect["region"])
        say(f"known defect: {defect['name']}{place}")


def _changeable(
    artifact: Path, encoder: str | None, weights: Path | None, allow_download: bool, threads: int | None
) -> Inspector:
    """A product that may be changed; that is known before the work and not after it."""
    from fewshot_ad.artifact import check_product_file

    inspector = load_product(artifact, encoder=encoder, weights=weights, allow_download=allow_download, threads=threads)
    check_product_file(artifact)
    return inspector


def _region(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SupportSetError(
            f"--region: expected X,Y,WIDTH,HEIGHT in pixels, such as 120,80,40,40, got {text!r}."
        ) from None


def _report(inspector: Inspector, artifact: Path, notes: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        record: dict[str, Any] = {"artifact": str(artifact), **inspector.info()}
        print_json("product", record)
        return
    for note in notes:
        say(f"note: {note}")
    say(
        f"{inspector.product}: threshold {inspector.threshold:.4g}, {_count(inspector.enrollment.support, 'image')}, "
        f"{_count(inspector.known_defects, 'known defect')}, {_count(inspector.history(), 'change')} since it was "
        f"enrolled -> {artifact}"
    )


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}" + ("s" if len(things) != 1 else "")
