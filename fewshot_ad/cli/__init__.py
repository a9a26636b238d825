"""The shell commands: each parses its options, calls the package and prints; one module for each group of them."""

from __future__ import annotations

import logging
import os
from typing import Annotated, NoReturn

import typer

from fewshot_ad.cli import (
    archives,
    baselines,
    benchmark,
    catalogs,
    comparing,
    corrections,
    datasets,
    drifting,
    encoders,
    fleet,
    inspecting,
    journals,
    looking,
    products,
    reporting,
    serving,
    tools,
    training,
    verdicts,
    zoo,
)
from fewshot_ad.cli.streams import show_notes, with_streams
from fewshot_ad.cli.usage import HELP_OPTIONS, Program

app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP_OPTIONS},
    rich_markup_mode="rich",
    help="""Visual inspection from a few good images, on a CPU, offline.

Take images of 2 to 8 good parts, then:

  fewshot-ad enroll good/ -o bracket.fsad

  fewshot-ad inspect bracket.fsad line/*.png --heatmaps heat/

Exit codes: 0 all good, 1 an anomaly was found, 2 an error, 3 one to look at.""",
)


def _print_version(requested: bool) -> None:
    if requested:
        from fewshot_ad import __version__

        print(f"fewshot-ad {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself; its help is the application's."""


for _group in (
    products,
    inspecting,
    verdicts,
    corrections,
    drifting,
    looking,
    catalogs,
    comparing,
    reporting,
    archives,
    serving,
    tools,
    encoders,
    training,
    zoo,
    baselines,
):
    app.add_typer(_group.commands)
app.add_typer(journals.backups)
app.add_typer(journals.commands, name="journal")
app.add_typer(fleet.commands, name="fleet")
app.add_typer(datasets.commands, name="datasets")
app.add_typer(benchmark.commands, name="benchmark")


def main() -> NoReturn:
    """Run the program and exit; `fewshot_ad.__main__` is the console script, since this module may not even import."""
    # The commands print the notes of an enrollment themselves.
    logging.basicConfig(level=logging.DEBUG if os.environ.get("FEWSHOT_AD_DEBUG") else logging.CRITICAL)
    with_streams(_run)


def _run() -> object:
    show_notes()
    # Not on its own: it ends with code 1 where a pipe is broken or the user aborts, and 1 means an anomaly.
    return app(standalone_mode=False)
