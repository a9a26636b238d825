"""The shell command of the baselines: list their cards, or show one with its hyper-parameters."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_ad.cli.options import JsonOption
from fewshot_ad.cli.terminal import print_json, reported_errors, say
from fewshot_ad.errors import ArgumentError

if TYPE_CHECKING:
    from fewshot_ad.zoo import Card

commands = typer.Typer()

# What an empty field of a card means.
EMPTY = {"monitors": "none: training stops at its end", "differs": "in nothing: the defaults are as published"}
HEADINGS = (
    "name",
    "title",
    "year",
    "family",
    "learns from",
    "task",
    "source",
    "license",
    "masks",
    "internet",
    "as published",
)
REQUIRED = "(required)"


@commands.command()
def zoo(
    name: Annotated[str | None, typer.Argument(help="A baseline, to show its whole card and hyper-parameters.")] = None,
    with_survey: Annotated[
        bool, typer.Option("--survey", help="List the methods of a survey of the field instead, and which are here.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the baselines to compare with, or show one with its hyper-parameters (extra 'zoo')."""
    with reported_errors(as_json):
        from fewshot_ad.zoo import cards, options, running_options
        from fewshot_ad.zoo.fit_memory import fit_bytes

        if with_survey:
            if name is not None:
                raise ArgumentError("expected --survey, or the name of a baseline, got both.")
            _print_survey(as_json)
        elif name is None:
            _print_cards(list(cards().values()), as_json)
        else:
            needed = fit_bytes(name, {}, images=8)
            _print_card(options(name), cards()[name], needed, as_json)
            how = running_options(name)
            if "device" in how and not as_json:
                say("how it runs, as options or --set: device=cpu, cuda or cuda:N; precision=f32 or bf16")
            if "patience" in how and not as_json:
                figures = ", ".join(cards()[name].monitors)
                say("when training stops: patience=N epochs without a better figure of a share validation=0..0.5 of")
                say(f"the good images, held out: monitor={figures} (against drawn defects); by default, at its end")


def _print_cards(cards: list[Card], as_json: bool) -> None:
    from fewshot_ad.benchmark.departures import in_short
    from fewshot_ad.zoo import differences

    if as_json:
        for card in cards:
            print_json("zoo", _as_dict(card))
        return
    rows: list[tuple[str, ...]] = [HEADINGS]
    for card in cards:
        texts = (card.name, card.title, str(card.year), card.family, card.supervision, card.task, card.source)
        needs = ("yes" if needed else "" for needed in (card.needs_masks, card.needs_internet))
        rows.append((*texts, card.license, *needs, in_short(differences(card.name, {}))))
    # Eleven columns are more than a narrow terminal holds: it wraps the lines, where a table of rich would drop text.
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    for row in rows:
        say("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    say("task: classification gives a score, localization a map as well, detection boxes; masks: needs masks to fit;")
    say("internet: its published form needs weights that must be downloaded; as published: what its default settings")
    say("change of the published method. A baseline's paper and hyper-parameters: fewshot-ad zoo NAME")


def _print_survey(as_json: bool) -> None:
    from fewshot_ad.zoo import cards
    from fewshot_ad.zoo.survey import survey

    methods, group = survey(), ""
    for method in methods:
        source = cards()[method.baseline].source if method.baseline else ""
        if as_json:
            print_json("zoo-survey", {**dataclasses.asdict(method), "source": source})
            continue
        if method.group != group:
            group = method.group
            say(group)
        missing = f"missing: {method.missing}; nearest: {method.nearest}"
        state = f"{method.baseline} (by {source})" if method.baseline else missing
        say(f"  {method.name:<36}  {method.year}  {state}{f', {method.note}' if method.note else ''}")
    if not as_json:
        count = sum(bool(method.baseline) for method in methods)
        say(f"{count} of {len(methods)} are in the zoo. The survey is that of Liu, Xie, Wang et al. 2024.")


def _as_dict(card: Card) -> dict[str, Any]:
    from fewshot_ad.zoo import differences

    fields = dataclasses.asdict(card)
    for name in ("original", "loss_tells"):
        fields.pop(name)
    return {**fields, "monitors": list(card.monitors), "task": card.task, "differs": list(differences(card.name, {}))}


def _print_card(options: dict[str, Any], card: Card, fit_bytes: float | None, as_json: bool) -> None:
    options = {key: REQUIRED if value is inspect.Parameter.empty else value for key, value in options.items()}
    if as_json:
        megabytes = None if fit_bytes is None else round(fit_bytes / 1e6)
        print_json("zoo", {**_as_dict(card), "options": options, "fit_megabytes": megabytes})
        return
    for name, value in _as_dict(card).items():
        if isinstance(value, list):
            text = "; ".join(value) or EMPTY[name]
        else:
            text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
        heading = f"{name.replace('_', ' '):<16}"
        for line in textwrap.wrap(text, 110, initial_indent=heading, subsequent_indent=" " * len(heading)):
            say(line)
    if fit_bytes is not None:
        say(f"memory          a fit takes about {fit_bytes / 1e9:.2g} GB at the defaults, on 8 images")
    say("hyper-parameters and their defaults" if options else "no hyper-parameters")
    width = max((len(key) for key in options), default=0)
    for key, value in options.items():
        say(f"  {key:<{width}}  {value if value == REQUIRED else repr(value)}")
