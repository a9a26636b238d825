"""The record of a benchmark: one line of JSON per job, appended as jobs end, readable after any interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fewshot_ad.documents.fields import check_dataclass
from fewshot_ad.documents.json_text import parse_json
from fewshot_ad.documents.reading import Document
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.printable import printable
from fewshot_ad.storage import check_output, lock, write_failure

logger = logging.getLogger(__name__)

Shots: TypeAlias = "int | Literal['full']"
RECORD_SCHEMA = 1
# Names of the images of the largest datasets take two million.
LINE_BYTES = 16_000_000
# In `Record.counts`: images of a category in the local copy of its dataset.
COPY = ("copy_train_good", "copy_validation_good", "copy_test_good", "copy_test_defective")


@dataclass(frozen=True)
class Record:
    """The result of one job for one category.

    Attributes:
        key: Identity of the job, see `plan.Job.key`; a plan that asks for it again finds it done.
        method: Name of the method as the plan calls it.
        baseline: Name in the zoo.
        options: Hyper-parameters other than the published ones, as the plan has them. A baseline with an option
            `class_name` that the plan leaves out got the category's name, where it served that category alone.
        dataset: Name of the dataset as the plan calls it.
        layout: Name of its reader.
        category: Product.
        setting: Which images the method was fitted on, see `plan.Job`, with its value: `noisy 10%`,
            `continual, replay 2`.
        shots: Good images it was fitted on, or `full`.
        draw: Number of the support draw.
        seed: Of everything random.
        protocol: How it was measured, see `plan.Protocol`.
        status: `done` or `failed`.
        reason: Of a failure; empty otherwise.
        figures: Figures of merit by name, in 0..1, `mcc` in -1..1: `image_auroc`, `image_aupr`, `image_f1_max`,
            `image_mcc_max`, `pixel_auroc`, `pixel_aupr`, `pixel_f1_max`, `pixel_iou_max`, `au_pro`, `au_pro_05`,
            `au_spro`, `au_spro_05`; `precision`, `recall`, `f1`, `false_reject_rate`, `escape_rate`,
            `balanced_accuracy` and `mcc` at the method's own threshold; `forgetting`. Those that do not
            apply are left out.
        intervals: 95% bootstrap intervals (low, high) of `image_auroc`, `image_aupr`, `image_f1_max`, `image_mcc_max`,
            `false_reject_rate` and `escape_rate`; not of figures of maps, all of which would have to stay in memory.
        fit_s: Seconds to fit.
        ms: Median milliseconds per image, from a decoded array to score and map.
        ms_p95: 95th percentile of that.
        ms_mae: Mean absolute error of single images against that median; None on older records.
        model_mb: Size of what an inspection needs, in megabytes.
        memory_mb: Peak resident memory of the process that ran the job, in megabytes.
        counts: Images by use: `support`, `test_good`, `test_defective`, `masks`, `unreadable`, `labeled` where it
            learned from defects; and those of the category that the local copy has, see `material.Material.copy`,
            which old records lack. Converted records have also `image_size` (pixels), `views` and `bank_vectors`, as
            enrollment chose them.
        support: Names of the images it was fitted on; of one model for many categories, those of this category.
        support_sha256: Hash of the names of all.
        labeled: Names of the defective images of this category that it learned from.
        overlays: Pictures of single results, relative to the record file: image, truth, map, predicted mask and
            its outline side by side.
        versions: Versions of the libraries that took part.
        machine: Processor, cores and system.
        date: ISO time the job ended at; empty where that was not written down.
        differs: In what the run departs from the published method, see `zoo.differences`; None where the record is from
            before that was written down.
        note: What to know of this record that no other field says, as where it was converted from; mostly empty.
        schema: Of this record.
    """

    key: str
    method: str
    baseline: str
    options: dict[str, Any]
    dataset: str
    layout: str
    category: str
    setting: str
    shots: Shots
    draw: int
    seed: int
    protocol: dict[str, Any]
    status: Literal["done", "failed"]
    reason: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    fit_s: float | None = None
    ms: float | None = None
    ms_p95: float | None = None
    ms_mae: float | None = None
    model_mb: float | None = None
    memory_mb: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    support: tuple[str, ...] = ()
    support_sha256: str = ""
    labeled: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    date: str = ""
    differs: tuple[str, ...] | None = None
    note: str = ""
    schema: int = RECORD_SCHEMA


# How every line starts, and what it must have.
START = b'{"key": "'
NAMES = {f.name for f in dataclasses.fields(Record)}
REQUIRED = {f.name for f in dataclasses.fields(Record) if f.default is MISSING and f.default_factory is MISSING}


def comparable(records: Sequence[Record]) -> None:
    """Make sure that records can stand in one table.

    Raises:
        BenchmarkError: They were measured under several protocols, or one name stands for several methods.
    """
    if len({json.dumps(r.protocol, sort_keys=True) for r in records}) > 1:
        raise BenchmarkError(
            "expected records of one protocol, got several, which do not compare. Say which plan's to report: --plan."
        )
    meanings: dict[str, str] = {}
    keys: dict[tuple[object, ...], str] = {}
    for r in records:
        meaning = json.dumps([r.baseline, r.options], sort_keys=True)
        if meanings.setdefault(r.method, meaning) != meaning:
            raise BenchmarkError(
                f"expected one meaning of {r.method!r}, got {meanings[r.method]} and {meaning}. Say which plan's "
                "records to report: --plan."
            )
        place = (r.method, r.dataset, r.category, r.setting, r.shots, r.draw)
        if keys.setdefault(place, r.key) != r.key:
            raise BenchmarkError(
                f"expected one record of {r.method}, {r.dataset}/{r.category}, draw {r.draw}, got several that differ "
                "in support list or seed. Say which plan's records to report: --plan."
            )


def append(path: Path, record: Record) -> None:
    """Add one line, in one write and synced, so that a kill leaves at most one line cut short.

    Raises:
        BenchmarkError: It cannot be written.
    """
    line = json.dumps(dataclasses.asdict(record), allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            # A line that a kill cut short must not swallow this one.
            file.seek(0, os.SEEK_END)
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BenchmarkError(
            f"{write_failure(path, error)} Its lines so far are safe: start the same plan again then."
        ) from error


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other runs from writing to a record file meanwhile; a lock that ends with the process, however that ends.

    Raises:
        BenchmarkError: Another run writes to it.
    """
    check_output(path, error=BenchmarkError)
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A file can be locked only once it is there.
            path.open("ab").close()
            stack.enter_context(lock(path, wait=False))
        except BlockingIOError as error:
            raise BenchmarkError(
                f"{path}: another run is writing to it. Wait for its end, or choose another file."
            ) from error
        except OSError as error:
            raise BenchmarkError(write_failure(path, error)) from error
        yield


def read(path: Path, note: Callable[[str], None] = logger.warning) -> list[Record]:
    """All whole lines of a record file, the last one of each job; a missing file holds none.

    Args:
        path: The file.
        note: Called with one sentence on each line that a kill cut short: its job counts as not done.

    Raises:
        BenchmarkError: It is no record file, or of another schema; the message names line and field.
    """
    records: dict[str, Record] = {}
    for number, line in _lines(path):
        try:
            entry = parse_json(line.decode(), str(path), BenchmarkError, "a benchmark record", number)
        except (BenchmarkError, UnicodeDecodeError) as error:
            if line[: len(START)] != START[: len(line)]:
                raise _foreign(f"{path}, line {number}", "something else") from error
            note(f"{path}, line {number}: cut short or damaged, so it is skipped and its job counts as not done.")
            continue
        record = _checked(entry, f"{path}, line {number}")
        records[record.key] = record
    return list(records.values())


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            # A line without end is never in memory as a whole.
            while line := file.readline(LINE_BYTES):
                number += 1
                if len(line) == LINE_BYTES:
                    raise _foreign(f"{path}, line {number}", f"more than {LINE_BYTES:,} bytes on one line")
                if line.strip():
                    yield number, line.strip()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BenchmarkError(f"{path}: expected a record file, cannot read it ({error.strerror}).") from error


def _checked(entry: Any, place: str) -> Record:
    if not isinstance(entry, dict) or not set(entry) >= REQUIRED:
        raise _foreign(place, "something else")
    schema = entry.get("schema")
    if schema != RECORD_SCHEMA:
        newer = type(schema) is int and schema > RECORD_SCHEMA
        advice = "Written by a newer fewshot-ad: update this one to read it" if newer else "No version has written that"
        raise BenchmarkError(f"{place}: expected a record of schema {RECORD_SCHEMA}, got {schema!r}. {advice}.")
    known = {name: value for name, value in _printable(entry).items() if name in NAMES}
    return check_dataclass(Record, Document(place, known), BenchmarkError)


def _printable(value: Any) -> Any:
    """A record from elsewhere must not write to the terminal, or fail where its names are encoded."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return {printable(k): _printable(v) for k, v in value.items()} if isinstance(value, dict) else value


def _foreign(place: str, what: str) -> BenchmarkError:
    return BenchmarkError(
        f"{place}: expected a benchmark record, got {what}. Give a file that `benchmark run` has written."
    )
