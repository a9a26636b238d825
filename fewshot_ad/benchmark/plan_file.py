"""The plan of a benchmark from YAML; every mistake in it is named with its field and line."""

from __future__ import annotations

import contextlib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fewshot_ad.benchmark.plan import DatasetPlan, MethodPlan, Plan, Protocol, Setting, can_run
from fewshot_ad.benchmark.plan_schema import DatasetEntry, MethodEntry, PlanEntry, SettingEntry
from fewshot_ad.documents.fields import Problem, check, raise_problems, words
from fewshot_ad.documents.naming import shown, unknown
from fewshot_ad.documents.reading import Document
from fewshot_ad.documents.yaml_text import read_yaml
from fewshot_ad.errors import BenchmarkError, WeightsError, ZooError

# Options of baselines before version 0.2 -> their names today.
FORMER_OPTIONS = {
    "neighbours": "neighbors",
    "regularisation": "regularization",
    "photographs": "images",
}


def read_plan(path: Path) -> Plan:
    """Read a plan; paths in it are relative to its own folder.

    Raises:
        BenchmarkError: It is missing, is not YAML, or says something that no plan can say; all mistakes are listed.
    """
    return _plan(read_yaml(path, BenchmarkError, "a plan in YAML"), path.parent)


def parse_plan(content: Any, folder: Path) -> Plan:
    """Read a plan from parsed YAML, or from what a program writes in its place: tuples count as lists.

    Args:
        content: The plan.
        folder: Its paths are relative to this one.

    Raises:
        BenchmarkError: It says something that no plan can say; all mistakes are listed.
    """
    return _plan(Document("plan", _plain(content)), folder)


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(name): _plain(value) for name, value in content.items()}
    return [_plain(value) for value in content] if isinstance(content, (list, tuple)) else content


def _plan(document: Document, folder: Path) -> Plan:
    entry = check(PlanEntry, document, BenchmarkError)
    methods = {name: method or MethodEntry.model_validate({}) for name, method in entry.methods.items()}
    problems = [
        *(problem for name, method in methods.items() for problem in _method_problems(name, method)),
        *(problem for name, dataset in entry.datasets.items() for problem in _dataset_problems(name, dataset)),
        *_setting_problems(entry),
    ]
    if problems:
        raise_problems(problems, document, BenchmarkError)
    datasets = {name: _dataset(name, dataset, folder) for name, dataset in entry.datasets.items()}
    return Plan(
        entry.name,
        tuple(_method(name, method) for name, method in methods.items()),
        tuple(datasets.values()),
        tuple(entry.shots),
        entry.draws,
        tuple(_setting(setting, datasets) for setting in entry.settings),
        entry.seed,
        Protocol(**entry.protocol.model_dump()),
    )


def _method_problems(name: str, method: MethodEntry) -> Iterator[Problem]:
    from fewshot_ad.zoo import cards

    baseline = method.baseline or name
    if baseline not in cards():
        yield _unknown_name(("methods", name), "baseline", method.baseline, baseline, cards())
        return
    found = list(_option_problems(name, baseline, method))
    # What is of the wrong type is not looked at further.
    yield from found or _configuration_problems(baseline, method, ("methods", name, "options"))


def _option_problems(name: str, baseline: str, method: MethodEntry) -> Iterator[Problem]:
    """Options that a baseline does not have, or whose values are of another type."""
    from fewshot_ad.zoo import option_types
    from fewshot_ad.zoo.configuration import fits

    kinds = option_types(baseline)
    for option, value in method.options.items():
        where = ("methods", name, "options", option)
        if option not in kinds:
            yield Problem(where, unknown(option, kinds, "an option", FORMER_OPTIONS))
        elif not fits(value, kinds[option]):
            yield Problem(where, f"expected {words(kinds[option])}, got {shown(value)}")


def _configuration_problems(baseline: str, method: MethodEntry, place: tuple[str, ...]) -> Iterator[Problem]:
    """What a baseline lacks, or cannot be told, though each option by itself is well."""
    from fewshot_ad.zoo import cards, check_published_weights, options
    from fewshot_ad.zoo.configuration import lacks_weights
    from fewshot_ad.zoo.stopping import STOPPING, check_stopping

    given = method.options
    # Whether the machine has it, the one that runs the job says.
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(given.get("device", "cpu"))):
        yield Problem((*place, "device"), f"expected cpu, cuda or cuda:N, got {shown(given['device'])}")
    try:
        if cards()[baseline].stops_early:
            stopping = {option: given[option] for option in STOPPING if option in given}
            check_stopping(baseline, cards()[baseline].monitors, stopping)
        if method.configuration == "published" and not lacks_weights(baseline, given):
            check_published_weights(baseline, given)
        # Files of weights may be on other machines alone, or not there yet: a run says which it does not find.
        with contextlib.suppress(WeightsError):
            _create(baseline, method)
    except (WeightsError, ZooError) as error:
        yield Problem(place, str(error).removeprefix(f"{baseline}: ").rstrip("."))
    if lacks_weights(baseline, given):
        message = (
            "expected weights, which are not at hand, got none. Give a file as `weights`; `weights: random` runs the "
            "code, but its figures mean nothing"
        )
        yield Problem(place, message)
    if "endpoint" in options(baseline) and given.get("endpoint") is None:
        message = "expected endpoint, the address of a service on this computer that runs its model, got none"
        yield Problem(place, message)


def _create(baseline: str, method: MethodEntry) -> None:
    """Let a baseline look at its options, which it does before it is fitted.

    Raises:
        ZooError: A value is out of range.
        WeightsError: A file is missing.
    """
    from fewshot_ad.zoo import create, options

    # What a machine has, is for the one that runs the job to say; nothing is fetched here.
    settings = {key: value for key, value in _method(baseline, method).options.items() if key != "device"}
    if "endpoint" not in options(baseline) or settings.get("endpoint") is not None:
        create(baseline, **settings)


def _method(name: str, entry: MethodEntry) -> MethodPlan:
    from fewshot_ad.zoo import cards

    baseline = entry.baseline or name
    published = cards()[baseline].original.options if entry.configuration == "published" else {}
    return MethodPlan(name, baseline, _plain({**published, **entry.options}))


def _unknown_name(place: tuple[str, str], field: str, written: str | None, name: str, known: Iterable[str]) -> Problem:
    return Problem(place if written is None else (*place, field), unknown(name, known, f"a {field}"))


def _dataset_problems(name: str, dataset: DatasetEntry) -> Iterator[Problem]:
    from fewshot_ad.datasets import dataset_cards

    layout = dataset.layout or name
    if layout not in dataset_cards():
        yield _unknown_name(("datasets", name), "layout", dataset.layout, layout, dataset_cards())


def _setting_problems(entry: PlanEntry) -> Iterator[Problem]:
    for number, setting in enumerate(entry.settings):
        if setting.transfer is not None and setting.transfer.source not in entry.datasets:
            place = ("settings", number, "transfer", "source")
            yield Problem(place, unknown(setting.transfer.source, entry.datasets, "a dataset of the plan"))
    if 0 not in entry.shots:
        return
    settings = [name_of(setting) for setting in entry.settings]
    able = {name: any(can_run(s, 0, _is_zero_shot(name, m)) for s in settings) for name, m in entry.methods.items()}
    learning = [name for name, is_able in able.items() if not is_able]
    # Beside other numbers, those that need images wait for these.
    if not any(able.values()) or (learning and set(entry.shots) == {0}):
        message = (
            "0 images of a product are for the setting `transfer`, and for `few-shot` with methods that judge without"
        )
        if not any(can_run(setting, 0, zero_shot=True) for setting in settings):
            message += f" any, got {', '.join(dict.fromkeys(settings))}. Take other settings or shots"
        else:
            message += f" any{', which ' + ', '.join(learning) + ' cannot' if learning else ''}. Take other shots"
        yield Problem(("shots", entry.shots.index(0)), message)


def _is_zero_shot(name: str, method: MethodEntry | None) -> bool:
    from fewshot_ad.zoo import cards

    card = cards().get((method.baseline if method is not None else None) or name)
    return card is not None and card.zero_shot


def _dataset(name: str, entry: DatasetEntry, folder: Path) -> DatasetPlan:
    return DatasetPlan(
        name,
        entry.layout or name,
        # Whole, since a worker on another machine has another working folder.
        (folder / entry.root).resolve(),
        tuple(entry.categories),
        None if entry.support is None else (folder / entry.support).resolve(),
    )


def _setting(entry: SettingEntry, datasets: Mapping[str, DatasetPlan]) -> tuple[Setting, Mapping[str, Any]]:
    (name,) = entry.model_fields_set
    options = getattr(entry, name).model_dump(exclude_unset=True)
    if entry.transfer is not None:
        options = {"source": datasets[entry.transfer.source]}
    return name_of(entry), options


def name_of(entry: SettingEntry) -> Setting:
    """The name of a setting in a plan."""
    (name,) = entry.model_fields_set
    return typing.cast("Setting", SettingEntry.model_fields[name].alias or name)
