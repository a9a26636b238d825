"""The shell commands of many stations: fleet push and pull."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot_ad.cli.options import JsonOption
from fewshot_ad.cli.terminal import (
    EXIT_ERROR,
    EXIT_GOOD,
    EXIT_REVIEW,
    print_json,
    report_failure,
    reported_errors,
    say,
)
from fewshot_ad.errors import ArgumentError

commands = typer.Typer(
    no_args_is_help=True,
    help="""Give products to many stations, by a folder or an object store (extra 'line').

fewshot-ad fleet push products/ /mnt/plant/parts

fewshot-ad fleet pull /mnt/plant/parts products/""",
)

StoreArgument = Annotated[str, typer.Argument(help="A folder, or a URL such as s3://bucket/parts (extra s3).")]
NameOption = Annotated[list[str] | None, typer.Option("--product", help="Only this one; may be given several times.")]


@commands.command()
def push(
    catalog: Annotated[Path, typer.Argument(help="Folder of the products.")],
    store: StoreArgument,
    product: NameOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what another station has put there, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put products into a store, each under the hash of its bytes; what another station has changed there stays.

    Exit code 2 if one has failed, 3 if one was left alone.
    """
    with reported_errors(as_json):
        fleet, found = _opened(catalog)
        code = _report(True, fleet.push(found, store, product or None, force=force), as_json)
    raise typer.Exit(code)


@commands.command()
def pull(
    store: StoreArgument,
    catalog: Annotated[Path, typer.Argument(help="Folder of the products.")],
    product: NameOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace products that were changed here, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch products from a store; one that was corrected here since it was fetched stays as it is.

    Exit code 2 if one has failed, 3 if one was left alone, since it was changed.
    """
    with reported_errors(as_json):
        fleet, found = _opened(catalog)
        code = _report(False, fleet.pull(store, found, product or None, force=force), as_json)
    raise typer.Exit(code)


def _opened(catalog: Path) -> tuple[Any, Any]:
    from fewshot_ad.catalog import Catalog
    from fewshot_ad.line.extra import needs_extra

    if not catalog.is_dir():
        raise ArgumentError(f"expected a folder of products at {catalog}, got none. Create it, or check the path.")
    with needs_extra():
        from fewshot_ad.line import fleet
    return fleet, Catalog(catalog)


def _report(pushing: bool, results: Any, as_json: bool) -> int:
    counts: Counter[str] = Counter()
    for one in results:
        counts[one.status] += 1
        if as_json:
            print_json("fleet-push" if pushing else "fleet-pull", one._asdict())
        elif one.status == "failed":
            report_failure(f"{one.name}: {one.message}", as_json, one.name)
        else:
            say(f"{one.name}: {one.status}{f' ({one.message})' if one.message else ''}")
    if not as_json:
        say(", ".join(f"{count} {status}" for status, count in counts.items()) or "no products")
    if counts["failed"]:
        return EXIT_ERROR
    # What was deleted here is wanted so: a nightly pull must not complain of it forever.
    return EXIT_REVIEW if counts["changed there"] + counts["changed here"] else EXIT_GOOD
