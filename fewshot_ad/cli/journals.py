"""The shell commands of a station's journal: journal export, events and replicate; backup and restore."""

from __future__ import annotations

import contextlib
import datetime
import enum
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

import typer

from fewshot_ad.cli.options import ForceOption, JsonOption
from fewshot_ad.cli.terminal import print_json, progress_bar, reported_errors, say
from fewshot_ad.errors import ArgumentError

if TYPE_CHECKING:
    from fewshot_ad.line.journal import Journal

commands = typer.Typer(
    no_args_is_help=True,
    help="""Read what a station has recorded (extra 'line'); the station may run meanwhile.

fewshot-ad journal export journal.db -o today.csv --since 2026-11-28

fewshot-ad journal events journal.db""",
)
backups = typer.Typer()

FormatName: TypeAlias = Literal["csv", "parquet", "html"]


class VerdictName(str, enum.Enum):
    """Verdicts to choose from: typer has no list of literals."""

    good = "good"
    review = "review"
    anomalous = "anomalous"
    not_inspectable = "not_inspectable"
    unreadable = "unreadable"


JournalArgument = Annotated[str, typer.Argument(help="The journal's file, or the URL of a database.")]


@commands.command()
def export(
    journal: JournalArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file, for example today.csv.")],
    form: Annotated[FormatName | None, typer.Option("--format", help="Of the file. Default: as its name ends.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Not before: 2026-11-28, 2026-11-28T06:00, or 8h, 30m, 7d ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Before, in the same forms.")] = None,
    product: Annotated[str | None, typer.Option(help="Only of this product.")] = None,
    verdict: Annotated[list[VerdictName] | None, typer.Option(help="Only these; may be given several times.")] = None,
    station: Annotated[str | None, typer.Option(help="Only of this station.")] = None,
    *,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write inspections to a file: CSV for spreadsheets, Parquet for programs (extra 'parquet'), or a page of HTML."""
    with reported_errors(as_json):
        chosen = _format(form, output)
        with _opened(journal) as opened:
            from fewshot_ad.line.journal import Selection
            from fewshot_ad.line.journal.exporting import export_journal

            _refuse_existing(output, journal, force)
            selection = Selection(
                product,
                tuple(one.value for one in verdict or ()),
                moment(since, "--since"),
                moment(until, "--until"),
                station,
            )
            with progress_bar(quiet=as_json) as progress:
                count = export_journal(opened, selection, output, chosen, progress)
    if as_json:
        print_json("journal-export", {"output": str(output), "format": chosen, "records": count})
    else:
        say(f"{count} inspections -> {output}")


@commands.command()
def events(
    journal: JournalArgument,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List what happened to a station, the latest last: starts, stops, what was lost, what was dropped."""
    with reported_errors(as_json), _opened(journal) as opened:
        found = opened.events(limit)[::-1]
        for event in found:
            if as_json:
                print_json("journal-event", {**event._asdict(), "time": event.time.isoformat()})
            else:
                say(f"{event.time.astimezone().isoformat(timespec='seconds')}  {event.kind:8} {event.text}")
        if not found and not as_json:
            say("nothing has happened")


@commands.command()
def replicate(
    journal: Annotated[Path, typer.Argument(help="The station's journal.")],
    target: Annotated[str, typer.Argument(help="URL of the shared database, or the file of another journal.")],
    as_json: JsonOption = False,
) -> None:
    """Copy what was recorded since the last time to a database that many stations share."""
    with reported_errors(as_json):
        if not journal.is_file():
            raise ArgumentError(f"expected a journal at {journal}, got none. Check the path.")
        count = 0
        with _opened(str(journal)) as opened:
            from fewshot_ad.line.journal import Journal
            from fewshot_ad.line.journal.database import open_database
            from fewshot_ad.line.sinks.replica import replicate as copy

            engine = open_database(target)
            try:
                for station in opened.stations():
                    count += copy(Journal(opened.engine, station), engine)
            finally:
                engine.dispose()
    if as_json:
        print_json("journal-replicate", {"journal": str(journal), "rows": count})
    else:
        say(f"{count} rows copied")


@backups.command()
def backup(
    catalog: Annotated[Path, typer.Argument(help="Folder of the products.")],
    journal: Annotated[Path, typer.Argument(help="The journal's file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The backup, for example monday.tar.")],
    pictures: Annotated[Path | None, typer.Option(help="Folder of pictures, to take along.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a station's products and journal to one file; the station may run meanwhile."""
    with reported_errors(as_json):
        if not catalog.is_dir():
            raise ArgumentError(f"expected a folder of products at {catalog}, got none. Check the path.")
        if not journal.is_file():
            raise ArgumentError(f"expected a journal at {journal}, got none. Check the path.")
        if pictures is not None and not pictures.is_dir():
            raise ArgumentError(f"--pictures: expected a folder at {pictures}, got none. Check the path.")
        with _needs_line():
            from fewshot_ad.line.backup import back_up
        with progress_bar(quiet=as_json) as progress:
            found = back_up(catalog, str(journal), output, pictures=pictures, progress=progress)
    _report(True, output, found, as_json)


@backups.command()
def restore(
    archive: Annotated[Path, typer.Argument(help="A backup, as fewshot-ad backup writes it.")],
    folder: Annotated[Path, typer.Argument(help="Where to: a folder that is empty or not there.")],
    as_json: JsonOption = False,
) -> None:
    """Unpack a backup of a station: products/, journal.db and pictures/ in a folder, each file checked."""
    with reported_errors(as_json):
        with _needs_line():
            from fewshot_ad.line.backup import restore as unpack
        with progress_bar(quiet=as_json) as progress:
            found = unpack(archive, folder, progress=progress)
    _report(False, folder, found, as_json)


def moment(text: str | None, option: str) -> datetime.datetime | None:
    """A time from a command line: ISO 8601, in local time unless it says another, or how long ago.

    Raises:
        ArgumentError: It is none.
    """
    if text is None:
        return None
    units = {"m": "minutes", "h": "hours", "d": "days"}
    number, unit = text[:-1], text[-1:]
    now = datetime.datetime.now().astimezone()
    try:
        if unit in units and number.isdecimal():
            return now - datetime.timedelta(**{units[unit]: int(number)})
        found = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        return found if found.tzinfo is not None else found.astimezone()
    except (ValueError, OverflowError):
        raise ArgumentError(
            f"{option}: expected a time such as 2026-11-28, 2026-11-28T06:00, or 8h (ago), got {text!r}."
        ) from None


def _report(made: bool, place: Path, found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json("backup" if made else "restore", {"place": str(place), **found})
        return
    held = f"{found['products']} products, the journal and {found['pictures']} pictures"
    say(f"{held}, {found['bytes']:,} bytes -> {place}")


def _format(form: FormatName | None, output: Path) -> FormatName:
    if form is not None:
        return form
    suffix = output.suffix.removeprefix(".").casefold()
    found: FormatName | None = next((one for one in get_args(FormatName) if one == suffix), None)
    if found is None:
        raise ArgumentError(
            f"expected a name that ends in .{', .'.join(get_args(FormatName))}, got {output.name}. Give --format."
        )
    return found


def _refuse_existing(output: Path, journal: str, force: bool) -> None:
    if output.resolve() == Path(journal).resolve():
        raise ArgumentError(f"expected another file than the journal, got {output}. Choose another name.")
    if output.exists() and not force:
        raise ArgumentError(f"{output}: expected a name that is free, got a file that is there. Give --force.")


def _needs_line() -> Any:
    from fewshot_ad.line.extra import needs_extra

    return needs_extra()


@contextmanager
def _opened(place: str) -> Iterator[Journal]:
    """A journal that is there."""
    if "://" not in place and not Path(place).is_file():
        raise ArgumentError(f"expected a journal at {place}, got none. Check the path.")
    with _needs_line():
        from fewshot_ad.line.journal import Journal
    with contextlib.closing(Journal.open(place)) as journal:
        yield journal
