"""Whether a product's file is what it says, and what differs between two: diff, and what `info --verify` looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot_ad.cli.options import JsonOption, refuse_misplaced
from fewshot_ad.cli.terminal import EXIT_ANOMALY, EXIT_ERROR, EXIT_GOOD, print_json, reported_errors, say

commands = typer.Typer()


def verified(artifact: Path, encoder: str | None, weights: Path | None, as_json: bool) -> int:
    """What of a file is true, and the exit code."""
    from fewshot_ad.artifact import verify

    found = verify(artifact, encoder, weights=weights)
    whole = not any(one.problem for one in found)
    if as_json:
        print_json("verify", {"artifact": str(artifact), "whole": whole, "checks": [one._asdict() for one in found]})
    else:
        for one in found:
            say(f"{'WRONG' if one.problem else 'ok'}: {one.what}" + (f": {one.problem}" if one.problem else ""))
    return EXIT_GOOD if whole else EXIT_ERROR


@commands.command()
def diff(
    first: Annotated[Path, typer.Argument(help="A product's .fsad file.")],
    second: Annotated[Path, typer.Argument(help="Another, or a later state of it.")],
    as_json: JsonOption = False,
) -> None:
    """Say what differs between two products: settings, threshold, images, history. Exit code 0 (nothing) or 1."""
    with reported_errors(as_json):
        from fewshot_ad.artifact import describe, differences, read_artifact

        for artifact in (first, second):
            refuse_misplaced("diff", artifact)
        records = [describe(*read_artifact(artifact)) for artifact in (first, second)]
        found = differences(*records)
    if as_json:
        fields = {"first": str(first), "second": str(second), "differences": [one._asdict() for one in found]}
        print_json("diff", fields)
    else:
        for one in found:
            say(f"{one.field}: {_shown(one.first)} -> {_shown(one.second)}")
        if not found:
            say(f"{first} and {second} are the same but for the time of their enrollment")
    raise typer.Exit(EXIT_ANOMALY if found else EXIT_GOOD)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
