"""The shell command of a folder of products: route."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_ad.cli.inspecting import image_paths
from fewshot_ad.cli.options import JsonOption, ThreadsOption
from fewshot_ad.cli.terminal import (
    EXIT_ANOMALY,
    EXIT_ERROR,
    EXIT_GOOD,
    print_json,
    report_failure,
    reported_errors,
    say,
)
from fewshot_ad.failures import explanation

if TYPE_CHECKING:
    from fewshot_ad.catalog import Enrolled

commands = typer.Typer()


@commands.command()
def route(
    catalog: Annotated[Path, typer.Argument(help="Folder of .fsad files.")],
    images: Annotated[list[str], typer.Argument(help="Images: folders, files, or quoted globs.")],
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which enrolled product each image shows: exit code 0 (one for each), 1 (none for some) or 2 (no answer)."""
    from fewshot_ad.errors import ImageError

    unknown = failed = 0
    with reported_errors(as_json):
        from fewshot_ad.catalog import Catalog

        products = Catalog(catalog, threads=threads)
        if not len(products):
            from fewshot_ad.errors import NotEnrolledError

            raise NotEnrolledError(
                f"expected products in {catalog}, got none. Enroll some with fewshot-ad enroll --each."
            )
        paths, failures = image_paths(images)
        for failure in failures:
            failed += 1
            report_failure(failure.message, as_json, failure.name)
        for path in paths:
            try:
                found = products.route(path)
            except ImageError as error:
                failed += 1
                report_failure(explanation(error), as_json, str(path))
                continue
            unknown += found.name is None
            if as_json:
                candidates: list[dict[str, Any]] = [
                    {"name": one.name, "distance": round(one.distance, 4), "reason": one.reason}
                    for one in found.candidates
                ]
                print_json("route", {"file": str(path), "product": found.name, "candidates": candidates})
            else:
                best = found.candidates[0]
                text = found.name or f"none of {len(products)} products; closest is {best.name}: {best.reason}"
                say(f"{path}: {text}")
    raise typer.Exit(EXIT_ERROR if failed else EXIT_ANOMALY if unknown else EXIT_GOOD)


def report_each(results: Any, folder: Path, as_json: bool) -> bool:
    """Say what becomes of each product that is enrolled; whether none failed.

    Args:
        results: As `catalog.enroll_each` yields them.
        folder: Where the products go.
        as_json: Whether the command was asked for JSON.
    """
    counts = {"enrolled": 0, "there": 0, "failed": 0}
    one: Enrolled
    for one in results:
        counts[one.status] += 1
        if as_json:
            print_json("enroll-each", {**one._asdict(), "seconds": round(one.seconds, 3)})
        elif one.status == "failed":
            report_failure(one.message, as_json, one.name)
        else:
            notes = f" ({one.message})" if one.message else ""
            say(f"{one.name}: {one.status}, {one.seconds:.1f} s{notes}")
    if not as_json:
        say(f"{counts['enrolled']} enrolled, {counts['there']} there already, {counts['failed']} failed -> {folder}")
    return not counts["failed"]
