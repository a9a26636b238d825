"""The plan of a benchmark from YAML; every mistake in it is an error that names the place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fewshot_ad.benchmark.plan import SETTINGS, DatasetPlan, MethodPlan, Plan, Protocol, Setting
from fewshot_ad.errors import BenchmarkError


def read_plan(path: Path) -> Plan:
    """Read a plan; paths in it are relative to its own folder.

    Raises:
        BenchmarkError: It is missing, is not YAML, or says something that no plan can say.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(
            f"expected a plan at {path}, cannot read it ({error.strerror}). Check the path."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path}: expected YAML, got something else ({str(error).splitlines()[0]}).") from error
    return parse_plan(content, path.parent)


def parse_plan(content: Any, folder: Path) -> Plan:
    """Read a plan from parsed YAML.

    Args:
        content: The plan.
        folder: Its paths are relative to this one.
    """
    _expect_names(
        content, "the plan", ("name", "methods", "datasets", "shots", "draws", "settings", "seed", "protocol")
    )
    methods = tuple(_method(name, entry) for name, entry in _entries(content, "methods"))
    datasets = {name: _dataset(name, entry, folder) for name, entry in _entries(content, "datasets")}
    shots = content.get("shots", [2, 4, 8])
    valid = isinstance(shots, list) and shots and all(s == "full" or _is_count(s) for s in shots)
    if not valid or len(set(shots)) < len(shots):
        raise BenchmarkError(f"shots: expected a list of different whole numbers and `full`, got {shots!r}.")
    draws, seed = content.get("draws", 3), content.get("seed", 0)
    if not _is_count(draws) or draws == 0:
        raise BenchmarkError(f"draws: expected a whole number from 1 up, got {draws!r}.")
    if not _is_count(seed):
        raise BenchmarkError(f"seed: expected a whole number, got {seed!r}.")
    settings = _settings(content.get("settings", ["few-shot"]), datasets)
    if 0 in shots and any(name != "transfer" for name, _ in settings):
        raise BenchmarkError("shots: 0 images of a product are for the setting `transfer` only.")
    return Plan(
        str(content.get("name", "Benchmark")),
        methods,
        tuple(datasets.values()),
        tuple(shots),
        draws,
        settings,
        seed,
        _protocol(content.get("protocol", {})),
    )


def _method(name: str, entry: Any) -> MethodPlan:
    from fewshot_ad.zoo import cards, options

    entry = {} if entry is None else entry
    _expect_names(entry, f"methods: {name}", ("baseline", "options"))
    baseline, settings = entry.get("baseline", name), entry.get("options", {})
    if baseline not in cards():
        raise BenchmarkError(f"methods: {name}: expected a baseline among {sorted(cards())}, got {baseline!r}.")
    _expect_names(settings, f"methods: {name}: options", tuple(options(baseline)))
    return MethodPlan(name, baseline, settings)


def _dataset(name: str, entry: Any, folder: Path) -> DatasetPlan:
    from fewshot_ad.datasets import dataset_cards

    _expect_names(entry, f"datasets: {name}", ("layout", "root", "categories", "support"))
    layout = entry.get("layout", name)
    if layout not in dataset_cards():
        raise BenchmarkError(f"datasets: {name}: expected a layout among {sorted(dataset_cards())}, got {layout!r}.")
    if "root" not in entry:
        raise BenchmarkError(f"datasets: {name}: expected `root`, the folder of the local copy, got none.")
    categories = entry.get("categories", [])
    if not isinstance(categories, list) or len(set(map(str, categories))) < len(categories):
        raise BenchmarkError(f"datasets: {name}: expected a list of different categories, got {categories!r}.")
    support = entry.get("support")
    return DatasetPlan(
        name,
        layout,
        # Whole, since a worker on another machine has another working folder.
        (folder / str(entry["root"])).resolve(),
        tuple(str(c) for c in categories),
        None if support is None else (folder / str(support)).resolve(),
    )


def _settings(entry: Any, datasets: Mapping[str, DatasetPlan]) -> tuple[tuple[Setting, Mapping[str, Any]], ...]:
    allowed = {"noisy": ("noise",), "continual": ("replay",), "transfer": ("source",)}
    settings: list[tuple[Setting, Mapping[str, Any]]] = []
    for item in entry if isinstance(entry, list) else [entry]:
        if isinstance(item, dict) and len(item) == 1:
            name, options = next(iter(item.items()))
        else:
            name, options = item, {}
        if not isinstance(name, str) or name not in SETTINGS or name == "full-shot":
            known = [s for s in SETTINGS if s != "full-shot"]
            raise BenchmarkError(f"settings: expected {known}, got {name!r}. For full-shot give shots: [full].")
        options = {} if options is None else options
        _expect_names(options, f"settings: {name}", allowed.get(name, ()))
        noise = options.get("noise", 0)
        if name == "noisy" and not (isinstance(noise, (int, float)) and 0 < noise < 1):
            raise BenchmarkError(
                "settings: noisy: expected `noise`, the share of defective support images, between 0 and 1, got "
                f"{noise!r}."
            )
        if not _is_count(options.get("replay", 0)):
            raise BenchmarkError(
                f"settings: continual: expected a whole number to `replay`, got {options['replay']!r}."
            )
        if name == "transfer":
            source = str(options.get("source"))
            if source not in datasets:
                raise BenchmarkError(f"settings: transfer: expected `source` among {sorted(datasets)}, got {source}.")
            options = {"source": datasets[source]}
        settings.append((name, options))
    if not settings:
        raise BenchmarkError("settings: expected at least one, got none.")
    return tuple(settings)


def _protocol(entry: Any) -> Protocol:
    names = tuple(f.name for f in dataclasses.fields(Protocol))
    _expect_names(entry, "protocol", names)
    for name, value in entry.items():
        size = name in ("test_limit", "pixel_side")
        if not ((_is_count(value) and (value or not size)) or (size and value is None)):
            expected = "a whole number from 1 up, or null" if size else "a whole number"
            raise BenchmarkError(f"protocol: {name}: expected {expected}, got {value!r}.")
    return Protocol(**entry)


def _entries(content: Mapping[str, Any], name: str) -> Sequence[tuple[str, Any]]:
    entries = content.get(name)
    if not isinstance(entries, dict) or not entries:
        raise BenchmarkError(f"{name}: expected at least one, by name, got {entries!r}.")
    return [(str(key), value) for key, value in entries.items()]


def _expect_names(entry: Any, where: str, names: Sequence[str]) -> None:
    if not isinstance(entry, dict):
        raise BenchmarkError(f"{where}: expected names and values, got {entry!r}.")
    unknown = sorted(set(map(str, entry)) - set(names))
    if unknown:
        raise BenchmarkError(f"{where}: expected {sorted(names)}, got {unknown}.")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
