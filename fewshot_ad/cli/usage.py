"""A command line that cannot be understood: one message in the words of the package, or one JSON object."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from fewshot_ad.cli.terminal import EXIT_ERROR, report_failure
from fewshot_ad.documents.naming import nearest, unknown

HELP_OPTIONS = ["-h", "--help"]
# click's own classes, which typer brings along in some versions and imports in others.
UsageError: Any = typer.BadParameter.__mro__[1]


class Program(TyperGroup):
    """The program: a mistake in its command line is reported as every other error is, with `--json` as JSON."""

    _as_json = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        _hide_types_of_flags(self)

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """As click does it, from the arguments of the whole command line."""
        ours = args[: args.index("--")] if "--" in args else args
        self._as_json = "--json" in ours
        with _reported(self._as_json):
            _refuse_empty(args)
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        """As click does it; the command's own arguments are read here."""
        with _reported(self._as_json):
            return super().invoke(ctx)


def _hide_types_of_flags(command: Any) -> None:
    """Newer versions of typer show `<bool>` behind a flag, as if it took a value."""
    help_option = command.get_help_option(typer.Context(command, help_option_names=HELP_OPTIONS))
    for parameter in [*command.params, help_option]:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for part in getattr(command, "commands", {}).values():
        _hide_types_of_flags(part)


def _refuse_empty(args: Sequence[str]) -> None:
    """An empty argument is a variable that a script has not set; as the name of a file it would be the working folder.

    Raises:
        typer.BadParameter: There is one.
    """
    for before, argument in zip(["fewshot-ad", *args], args, strict=False):
        option, _, value = argument.partition("=")
        if not argument or (argument.startswith("--") and option != argument and not value):
            where = f"after {before}" if not argument else f"of {option}"
            raise typer.BadParameter(f"expected a value {where}, got an empty text. Check the variable it comes from")


@contextmanager
def _reported(as_json: bool) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        # No argument at all: click answers with the help.
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        report_failure(usage_message(error), as_json)
        raise typer.Exit(EXIT_ERROR) from None


def usage_message(error: Any) -> str:
    """What was expected, what was found instead, and where to look it up.

    Args:
        error: A `UsageError` of click.
    """
    words = _words(error.ctx)
    command = " ".join(["fewshot-ad", *words])
    return f"{_sentence(error, command)} See `{command} --help`."


def _words(context: Any) -> list[str]:
    words: list[str] = []
    while context is not None and context.parent is not None:
        words.insert(0, context.info_name)
        context = context.parent
    return words


def _sentence(error: Any, command: str) -> str:
    message = str(error.message or "")
    if type(error).__name__ == "MissingParameter":
        return f"{command}: expected {_parameter(error.param)}, got none."
    if type(error).__name__ == "NoSuchOption":
        known = [name for parameter in error.ctx.command.params for name in parameter.opts if name.startswith("--")]
        return f"{command}: expected one of its options, got {error.option_name}{_likely(error.option_name, known)}."
    if isinstance(error, typer.BadParameter) and error.param is None and error.param_hint is None:
        return f"{command}: {message.rstrip('.')}."
    if isinstance(error, typer.BadParameter):
        return f"{_hint(error)}: {_bad_value(error, message)}"
    if match := re.match(r"No such command '(.*?)'\.", message):
        return f"{command}: {unknown(match[1], error.ctx.command.commands, 'a command')}."
    if match := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message):
        return f"{command}: expected no further argument, got {match[1]!r}. Quote a name that holds spaces."
    if match := re.match(r"Option '(.*?)' requires an argument", message):
        return f"{command}: expected a value after {match[1]}, got none."
    return f"{command}: {message.rstrip('.')}."


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"the argument {parameter.name.upper()} ({_first_sentence(parameter.help)})"
    return f"the option {' or '.join(parameter.opts)} ({_first_sentence(parameter.help)})"


def _first_sentence(text: str | None) -> str:
    return re.split(r"[.;] ", text or "")[0].rstrip(".")


def _hint(error: Any) -> str:
    if error.param_hint is not None:
        return str(error.param_hint)
    return error.param.name.upper() if error.param.param_type_name == "argument" else str(error.param.opts[0])


def _bad_value(error: Any, message: str) -> str:
    """Typer's sentence in the words of the package.

    Where typer reads values through pydantic it drops the value itself, which the cause still has.
    """
    details = error.__cause__.errors()[0] if hasattr(error.__cause__, "errors") else {}
    message = message.removeprefix("Value error, ")
    if match := re.match(r"'(.*)' is not one of (.*?)\.?$", message, re.DOTALL):
        known = re.findall(r"'(.*?)'", match[2])
        return f"expected one of {', '.join(known)}, got {match[1]!r}{_likely(match[1], known)}."
    if match := re.match(r"path '(.*)' is not readable\.?$", message, re.IGNORECASE | re.DOTALL):
        return f"expected a file or folder that may be read, got {match[1]}. Check its permissions."
    if details:
        return f"expected {_expectation(details)}, got {str(details['input'])!r}."
    return f"{message.rstrip('.')}."


def _expectation(details: dict[str, Any]) -> str:
    kinds = {"int_parsing": "a whole number", "float_parsing": "a number", "bool_parsing": "true or false"}
    limits = {"ge": "at least", "le": "at most", "gt": "more than", "lt": "less than"}
    bounds = [f"{words} {details['ctx'][key]:g}" for key, words in limits.items() if key in details.get("ctx", {})]
    if bounds:
        return f"a number of {' and '.join(bounds)}"
    return kinds.get(details["type"], str(details["msg"]).removeprefix("Input should be "))


def _likely(name: str, known: Sequence[str]) -> str:
    likely = nearest(name, known)
    return f" (did you mean {likely}?)" if likely else ""
