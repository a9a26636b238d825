"""What the timing scripts put on record: one line of JSON per run, from which the tables of the docs are printed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_ad.benchmark.machine import machine, now, versions

RECORDS = Path(__file__).parent / "records"
FILE = RECORDS / "measurements.jsonl"


@dataclass(frozen=True)
class Measurement:
    """One run of a timing script.

    Attributes:
        name: What was measured, as `latency`; several runs may have the same name, of which the last counts.
        rows: The figures, one mapping per row of the table; what was not measured is absent.
        command: The command that measured them.
        date: ISO date or time.
        machine: Processor, cores and system.
        versions: Versions of the libraries that took part.
        note: What to know of this run that no other field says; mostly empty.
    """

    name: str
    rows: list[dict[str, Any]]
    command: str
    date: str
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    note: str = ""


def read(name: str) -> Measurement:
    """The last run of that name on record.

    Raises:
        KeyError: There is none.
    """
    entries = [json.loads(line) for line in FILE.read_text().splitlines()]
    runs = [entry for entry in entries if entry["name"] == name]
    if not runs:
        raise KeyError(f"expected a measurement called {name!r} in {FILE}, found none.")
    return Measurement(**runs[-1])


def add_record_option(parser: argparse.ArgumentParser) -> None:
    """Let a script put its figures on record."""
    parser.add_argument("--record", action="store_true", help=f"append the figures to {FILE.parent.name}/{FILE.name}")


def append(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Put the figures of this process's command on record."""
    command = f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}"
    run = Measurement(name, list(rows), command.removesuffix(" "), now(), machine(), versions())
    with FILE.open("a") as file:
        file.write(json.dumps(dataclasses.asdict(run)) + "\n")
