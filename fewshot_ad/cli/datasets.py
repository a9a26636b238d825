"""The shell commands of datasets: list the readers, show one, check a local copy, fetch one."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_ad.cli.options import JsonOption
from fewshot_ad.cli.terminal import EXIT_GOOD, print_json, progress_bar, reported_errors, say
from fewshot_ad.errors import DatasetError

if TYPE_CHECKING:
    from fewshot_ad.datasets import CheckReport, DatasetCard

EXIT_INCOMPLETE = 1
MAX_LINES = 20

commands = typer.Typer(
    invoke_without_command=True, help="Public inspection datasets: without a command all of them; show, check, get one."
)

NameArgument = Annotated[str, typer.Argument(help="Name of the dataset, see `fewshot-ad datasets`.")]


@commands.callback()
def datasets(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the datasets that can be read: categories, images, archive in GB, masks, license, layout of a copy."""
    if context.invoked_subcommand is not None:
        if as_json:
            raise typer.BadParameter("expected after the command, got before it", param_hint="--json")
        return
    with reported_errors(as_json):
        from fewshot_ad.datasets import dataset_cards

        cards = dataset_cards().values()
    if as_json:
        for card in cards:
            print_json("datasets", _as_dict(card))
    else:
        _print_cards(cards)


def _print_cards(cards: Iterable[DatasetCard]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    numbers = [Column(heading, justify="right") for heading in ("categories", "images", "GB")]
    license = Column("license\nlayout of a copy", overflow="fold")
    listing = Table("name\ntitle", *numbers, "masks", license, box=None, pad_edge=False)
    for card in cards:
        number = str(len(card.categories)) if card.categories else "own"
        images = "" if card.images is None else f"{card.images:,}"
        size = "" if card.size_gb is None else f"{card.size_gb:g}"
        # The first path of the layout tells it from the others; `show` prints all of it.
        layout = card.layout.splitlines()[0].partition(" (")[0]
        names, terms = f"[bold]{escape(card.name)}[/bold]\n{escape(card.title)}", escape(f"{card.license}\n{layout}")
        listing.add_row(names, number, images, size, card.masks, terms)
    Console().print(listing)


@commands.command()
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show a dataset's card: license, publisher, published counts, and the layout a copy must have."""
    with reported_errors(as_json):
        from fewshot_ad.datasets.card import registered

        card, _ = registered(name)
    if as_json:
        print_json("datasets", _as_dict(card))
        return
    say(f"{card.title} ({card.name})")
    say(f"license    {card.license}")
    say(f"publisher  {card.source}")
    say(f"cite       {card.citation}")
    say(f"masks      {card.masks}")
    say(f"size       {_size(card)}")
    download = f"fewshot-ad datasets get {name} FOLDER" if card.archive else "from the publisher's page"
    say(f"download   {download}")
    say("layout")
    for line in card.layout.splitlines():
        say(f"  {line}")
    say("categories (published images; ? = not known)" if card.counts else "categories")
    for category in card.categories:
        counts = card.counts.get(category)
        cells = counts._asdict().items() if counts else ()
        texts = [f"{cell.replace('_', ' ')} {'?' if n is None else n}" for cell, n in cells if n != 0]
        say(f"  {category}{': ' if texts else ''}{', '.join(texts)}")
    if not card.categories:
        say("  your own")


@commands.command()
def check(
    name: NameArgument,
    root: Annotated[Path, typer.Argument(help="Folder of the local copy.")],
    category: Annotated[str | None, typer.Option(help="Check only this category.")] = None,
    no_decode: Annotated[
        bool, typer.Option("--no-decode", help="Check only that the files exist; decode none of them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a local copy: counts, files, masks; exit code 0 (complete), 1 (something is wrong) or 2 (an error)."""
    with reported_errors(as_json), progress_bar(quiet=as_json) as progress:
        from fewshot_ad.datasets import check as examine

        report = examine(name, root, progress, category=category, decode=not no_decode)
    if as_json:
        print_json("datasets-check", report.as_dict())
    else:
        _say_report(report)
    raise typer.Exit(EXIT_GOOD if report.complete else EXIT_INCOMPLETE)


@commands.command()
def get(
    name: NameArgument,
    root: Annotated[Path, typer.Argument(help="Folder to write; it may exist if it is empty.")],
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="You have read the dataset's license and accept it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a dataset from its publisher, if you accept its license; no other command of datasets uses the network."""
    with reported_errors(as_json):
        from fewshot_ad.datasets import download
        from fewshot_ad.datasets.card import registered

        card, _ = registered(name)
        if not as_json:
            say(f"{card.title}, license: {card.license} (see {card.source}), {_size(card)}")
        if card.archive is not None and not accept_license:
            raise DatasetError(
                f"expected the license of {card.title} to be accepted: {card.license}. Read it at {card.source}, then "
                "add --accept-license."
            )
        with progress_bar(quiet=as_json) as progress:
            folder = download(name, root, accept_license, progress)
    if as_json:
        print_json("datasets-get", {"dataset": name, "root": str(folder), "license": card.license})
        return
    say(f"{card.title} -> {folder}")
    say(f"check it: fewshot-ad datasets check {name} {folder}")


@commands.command()
def draw(
    good: Annotated[list[str], typer.Argument(help="Good images: a folder, files, or a quoted glob.")],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write, in layout mvtec; it may exist if it is empty.")
    ],
    category: Annotated[str, typer.Option(help="Name of the product.")] = "part",
    test_share: Annotated[float, typer.Option(help="Share of the images that is for the test.")] = 1 / 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn, and where.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a dataset from good images alone, to compare methods on: defects are drawn on those for the test.

    How well a method finds drawn defects is not how well it finds real ones; `DRAWN.md` in the folder says so, too.
    """
    with reported_errors(as_json), progress_bar(quiet=as_json) as progress:
        # First, since the benchmark's modules need the baselines' libraries, and this names the extra that has them.
        importlib.import_module("fewshot_ad.zoo")
        from fewshot_ad.benchmark.drawn_dataset import draw_dataset

        made = draw_dataset([*good], output, category=category, test_share=test_share, seed=seed, progress=progress)
    if as_json:
        print_json("datasets-draw", {**dataclasses.asdict(made), "folder": str(made.folder)})
        return
    for note in made.notes:
        say(note)
    say(
        f"{made.train} good images to learn from, {made.test_good} good ones and {made.test_defective} with a drawn "
        f"defect for the test -> {made.folder}"
    )
    say(f"in a plan: datasets: {{{category}: {{layout: mvtec, root: {made.folder}}}}}")


def _as_dict(card: DatasetCard) -> dict[str, Any]:
    counts = {category: counts._asdict() for category, counts in card.counts.items()}
    return {**dataclasses.asdict(card), "counts": counts}


def _size(card: DatasetCard) -> str:
    images = "images: your own" if card.images is None else f"{card.images:,} images"
    return images + (f", archive {card.size_gb} GB" if card.size_gb else "")


def _say_report(report: CheckReport) -> None:
    for category, cells in report.counts.items():
        say(f"{category}: " + ", ".join(f"{cell.replace('_', ' ')} {n}" for cell, n in sorted(cells.items())))
    for heading, lines in (
        ("missing", report.missing),
        ("other than published", report.differences),
        ("cannot be read", report.unreadable),
        ("image and mask do not go together", report.unpaired),
        ("note", report.notes),
    ):
        if lines:
            say(f"{heading} ({len(lines)}):")
        for line in lines[:MAX_LINES]:
            say(f"  {line}")
        if len(lines) > MAX_LINES:
            say(f"  and {len(lines) - MAX_LINES} more; --json lists all")
    total = sum(n for cells in report.counts.values() for n in cells.values())
    say(f"{report.name}: {total} images, {'complete' if report.complete else 'NOT complete'}")
