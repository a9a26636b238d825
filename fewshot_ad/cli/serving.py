"""The shell command of a station: serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fewshot_ad.cli.options import JsonOption, ThreadsOption
from fewshot_ad.cli.terminal import EXIT_ERROR, print_json, reported_errors, say

if TYPE_CHECKING:
    from fewshot_ad.line.judge import Judge

commands = typer.Typer()


@commands.command()
def serve(
    config: Annotated[
        Path | None, typer.Argument(help="A station's settings in YAML. The options below go before them.")
    ] = None,
    catalog: Annotated[
        Path | None, typer.Option(help="Folder of the products, .fsad files. Default: products.")
    ] = None,
    baselines: Annotated[
        list[Path] | None,
        typer.Option(
            "--baseline",
            help="Folder of a fitted baseline, which judges the product it is named after. Repeatable, in place of "
            "those of the settings; extra 'zoo'.",
        ),
    ] = None,
    journal: Annotated[
        str | None, typer.Option(help="The journal's file, or the URL of a database. Default: journal.db.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; another than this computer's needs --token-file.")
    ] = None,
    *,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on. Default: 8470.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File whose first line is what callers must know.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder of kept images. Default: pictures.")] = None,
    keep: Annotated[
        Literal["all", "rejects", "none"] | None, typer.Option(help="Which images are kept. Default: rejects.")
    ] = None,
    threads: ThreadsOption = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is wrong with the settings.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a station: a web page, an HTTP interface and a journal, until it is stopped.

    A browser on this computer then shows it at http://127.0.0.1:8470/. Needs the extra `line`.
    """
    with reported_errors(as_json):
        from fewshot_ad.line.settings import override, read_settings

        given: dict[str, Any] = {
            "catalog": catalog,
            "baselines": [str(folder) for folder in baselines] if baselines else None,
            "journal": journal,
            "threads": threads,
            "listen.host": host,
            "listen.port": port,
            "listen.token_file": token_file,
            "pictures.folder": pictures,
            "pictures.keep": keep,
        }
        settings = override(None if config is None else read_settings(config), given)
        from fewshot_ad.line.extra import needs_extra

        with needs_extra():
            from fewshot_ad.line.station import ServingStation, check_settings
        if check:
            problems = check_settings(settings, _load_baseline)
            if as_json:
                print_json("serve-check", {"station": settings.station, "problems": problems})
            for problem in [] if as_json else problems:
                say(f"problem: {problem}")
            if not problems and not as_json:
                say(f"station {settings.station}: nothing is wrong with its settings")
            raise typer.Exit(EXIT_ERROR if problems else 0)
        serving = ServingStation(settings, _load_baseline)
        if as_json:
            print_json("serve", {"station": settings.station, "url": serving.url})
        else:
            say(f"station {settings.station}: {serving.url} (Ctrl-C ends it)")
        serving.run()


def _load_baseline(folder: Path) -> Judge:
    # The line lies below the zoo, and runs without it.
    from fewshot_ad.zoo.fitted import Baseline

    return Baseline.load(folder)
