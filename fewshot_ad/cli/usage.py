"""A command line that cannot be understood: one message in the words of the package, or one JSON object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
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

    _arguments: Sequence[str] = ()

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        _prepare(self)

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """As click does it, from the arguments of the whole command line."""
        self._arguments = args[: args.index("--")] if "--" in args else list(args)
        with _reported(self._arguments):
            _refuse_empty(args)
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        """As click does it; the command's own arguments are read here."""
        with _reported(self._arguments):
            return super().invoke(ctx)


def _prepare(command: Any) -> None:
    """What all commands and options have in common, and typer does not give them."""
    help_option = command.get_help_option(typer.Context(command, help_option_names=HELP_OPTIONS))
    for parameter in [*command.params, help_option]:
        if getattr(parameter, "is_flag", False):
            # Newer versions of typer show `<bool>` behind a flag, as if it took a value.
            parameter.metavar = ""
    command.parse_args, command.invoke = _naming_the_command(command.parse_args), _naming_the_command(command.invoke)
    for part in getattr(command, "commands", {}).values():
        _prepare(part)


def _naming_the_command(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step of a command whose errors say which command it is: click leaves that out of some."""

    def named(ctx: Any, *rest: Any) -> Any:
        try:
            return step(ctx, *rest)
        except UsageError as error:
            if error.ctx is None:
                error.ctx = ctx
            raise

    return named


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
def _reported(arguments: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        # No argument at all: click answers with the help.
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        # However it is misspelled: a program reads the answer.
        as_json = any(word in ("--json", "-json") or word.startswith("--json=") for word in arguments)
        report_failure(usage_message(error, arguments), as_json)
        raise typer.Exit(EXIT_ERROR) from None


def usage_message(error: Any, arguments: Sequence[str]) -> str:
    """What was expected, what was found instead, and where to look it up.

    Args:
        error: A `UsageError` of click.
        arguments: The words of the command line.
    """
    command = " ".join(["fewshot-ad", *_words(error.ctx)])
    return f"{_sentence(error, command, arguments)} See `{command} --help`."


def _words(context: Any) -> list[str]:
    words: list[str] = []
    while context is not None and context.parent is not None:
        words.insert(0, context.info_name)
        context = context.parent
    return words


def _sentence(error: Any, command: str, arguments: Sequence[str]) -> str:
    message = str(error.message or "")
    if type(error).__name__ == "MissingParameter":
        return f"{command}: expected {_parameter(error.param)}, got none."
    if type(error).__name__ == "NoSuchOption":
        return f"{command}: {_no_such_option(error, arguments)}."
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
    if match := re.match(r"Option '(.*?)' does not take a value", message):
        return f"{command}: expected {match[1]} without a value, got one."
    return f"{command}: {message.rstrip('.')}."


def _no_such_option(error: Any, arguments: Sequence[str]) -> str:
    option, program = str(error.option_name), error.ctx.command
    if option == "--json" and hasattr(program, "commands"):
        return "expected --json after the command, got it before"
    if not option.startswith("--"):
        # click names the first letter only.
        option = next((word for word in arguments if word.startswith(option)), option)
    known = [name for parameter in program.params for name in parameter.opts if name.startswith("--")]
    return f"expected one of its options, got {option}{_likely(option, known)}"


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
    # As older versions of typer say it.
    if match := re.match(r"'(.*)' is not a valid (integer|float)", message, re.DOTALL):
        return f"expected {'a whole number' if match[2] == 'integer' else 'a number'}, got {match[1]!r}."
    if match := re.match(r"(.*) is not in the range (.*?)\.?$", message):
        return f"expected a number of {_bounds(match[2])}, got {match[1]!r}."
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


def _bounds(interval: str) -> str:
    """`1<=x<=9`, `x>=1` or `x<=9` in words."""
    low = re.search(r"x>=(\S+)", interval) or re.match(r"(\S+?)<=x", interval)
    high = re.search(r"x<=(\S+)", interval)
    bounds = {"at least": low, "at most": high}
    return " and ".join(f"{words} {bound[1]}" for words, bound in bounds.items() if bound)


def _likely(name: str, known: Sequence[str]) -> str:
    likely = nearest(name, known)
    return f" (did you mean {likely}?)" if likely else ""
