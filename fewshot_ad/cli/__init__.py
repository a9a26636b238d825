"""The shell commands: thin, each calls one function of the package."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Annotated

import typer

from fewshot_ad.cli.benchmark import benchmark_app
from fewshot_ad.cli.datasets import datasets_app
from fewshot_ad.cli.products import commands as product_commands
from fewshot_ad.cli.tools import commands as tool_commands
from fewshot_ad.cli.training import commands as training_commands
from fewshot_ad.cli.zoo import commands as zoo_commands

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help="""Visual inspection from a few good images, on a CPU, offline.

Image 2 to 8 good parts, then:

  fewshot-ad enroll good/ -o bracket.fsad

  fewshot-ad inspect bracket.fsad line/*.png --heatmaps heat/

Exit codes: 0 all good, 1 an anomaly was found, 2 an error.""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
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


app.add_typer(product_commands)
app.add_typer(tool_commands)
app.add_typer(training_commands)
app.add_typer(zoo_commands)
app.add_typer(datasets_app, name="datasets")
app.add_typer(benchmark_app, name="benchmark")


def main() -> None:
    """Entry point of the console script."""
    # A file name that the terminal cannot show must not stop a batch.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # The commands print an enrollment's notes themselves.
    logging.basicConfig(level=logging.DEBUG if os.environ.get("FEWSHOT_AD_DEBUG") else logging.CRITICAL)
    app()
