"""The commands of the program as click has them, for tests of help and options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from fewshot_ad.cli import app

# click's classes, which typer brings along in some versions and imports in others.
Command = Any


def every_command(command: Command = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    """All commands and groups with the words that call them, the program itself first."""
    command = command or get_command(app)
    yield path, command
    for name, part in getattr(command, "commands", {}).items():
        yield from every_command(part, (*path, name))


def shown_help(path: tuple[str, ...], columns: int = 1000, option: str = "--help") -> str:
    """The help of a command as a terminal of that width shows it, without colors."""
    result = CliRunner().invoke(app, [*path, option], prog_name="fewshot-ad", env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.output
    return re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)


def parse(arguments: list[str]) -> int | str | None:
    """The exit code of the program with these arguments, all of them parsed and none of its work done."""
    program = get_command(app)
    for _, command in every_command(program):
        command.callback = lambda **_: None
    try:
        program.main(arguments, prog_name="fewshot-ad")
    except SystemExit as end:
        return end.code
    return 0


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the program; nothing but its exit may be raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr
